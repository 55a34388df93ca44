//! `spec.rotation` and `spec.rollout` of an ApiKey.

use serde_json::{Value, json};

use super::{Outcome, Table};

pub(super) fn rotations(t: &mut Table) {
    intervals(t);
    overlaps(t);
    windows(t);
    window_times(t);
    rollouts(t);
    edits(t);
}

fn rotation(rotation: Value) -> Value {
    json!({ "spec": { "rotation": rotation } })
}

fn intervals(t: &mut Table) {
    t.accepts("a rotation may say nothing", &rotation(json!({})));
    for every in ["720h", "1m", "87600h", "24h30m", "2592000s", "90m", "60000ms", "00001h"] {
        t.accepts(format!("a key may be replaced every {every}"), &rotation(json!({ "every": every })));
    }
    for every in [
        "",
        "0s",
        "59s",
        "59999ms",
        "87601h",
        "99999h",
        "30d",
        "1w",
        "1mo",
        "monthly",
        "1.5h",
        "-720h",
        "+720h",
        "720",
        "720 h",
        " 720h",
        "720h\n",
        "720H",
        "h",
        "1h-30m",
        "720h0",
        "123456h",
        "1h1h1h1h1h",
        "99999999999999999999h",
        "1000000us",
        "60000000000ns",
    ] {
        t.refuses(
            format!("a key cannot be replaced every {every:?}"),
            &rotation(json!({ "every": every })),
            "for example 720h for 30 days; leave it out to rotate only on demand",
        );
    }
    t.schema_refuses(
        "an interval is a text",
        &rotation(json!({ "every": 720 })),
        "spec.rotation.every: Invalid value: \"integer\"",
    );
    t.schema_refuses(
        "an interval has at most 64 characters",
        &rotation(json!({ "every": "1".repeat(65) })),
        "spec.rotation.every: Too long: may not be more than 64",
    );
}

fn overlaps(t: &mut Table) {
    t.accepts(
        "overlaps may be as long as one likes",
        &rotation(json!({ "minOverlap": "72h", "quietFor": "168h", "maxOverlap": "336h" })),
    );
    t.accepts(
        "overlaps may be nothing at all",
        &rotation(json!({ "minOverlap": "0s", "quietFor": "0s", "maxOverlap": "0s" })),
    );
    for field in ["minOverlap", "quietFor", "maxOverlap"] {
        for value in ["", "1d", "-1h", "1.5h", "soon", "87601h"] {
            t.refuses(
                format!("{field}: {value:?} is no overlap"),
                &rotation(json!({ field: value })),
                "for example 168h for a week, 90m or 1h30m",
            );
        }
    }
    let fit =
        "maxOverlap (default: 168h) must be as long as minOverlap (default: 1h) and quietFor (default: 24h)";
    t.accepts(
        "the longest overlap may be the shortest one too",
        &rotation(json!({ "minOverlap": "48h", "quietFor": "48h", "maxOverlap": "48h" })),
    );
    t.accepts(
        "overlaps are compared as durations",
        &rotation(json!({ "quietFor": "90m", "maxOverlap": "2h" })),
    );
    for (says, value) in [
        ("less than the shortest one", json!({ "minOverlap": "49h", "maxOverlap": "48h" })),
        ("less than the quiet time", json!({ "quietFor": "49h", "maxOverlap": "48h" })),
        ("less than the default of the quiet time", json!({ "maxOverlap": "23h" })),
        ("less than the default of the shortest one", json!({ "quietFor": "0s", "maxOverlap": "59m" })),
        ("by default less than the shortest one", json!({ "minOverlap": "169h" })),
        ("by default less than the quiet time", json!({ "quietFor": "169h" })),
    ] {
        t.refuses(format!("the longest overlap cannot be {says}"), &rotation(value), fit);
    }
    for policy in ["Hold", "SwitchBack"] {
        t.accepts(
            format!("a failed rollout may mean {policy}"),
            &rotation(json!({ "onRolloutFailure": policy })),
        );
    }
    t.schema_refuses(
        "what a failed rollout means is one of two",
        &rotation(json!({ "onRolloutFailure": "Revoke" })),
        "supported values: \"SwitchBack\", \"Hold\"",
    );
}

/// A good window with something changed.
fn window(change: &Value) -> Value {
    let good =
        json!({ "days": ["Tue", "Thu"], "from": "02:00", "duration": "2h", "timeZone": "Europe/Berlin" });
    rotation(json!({ "windows": [super::changed(&good, change)] }))
}

fn windows(t: &mut Table) {
    t.accepts("a window has days, a time, a duration and a zone", &window(&json!({})));
    let short = json!({ "from": "02:00", "duration": "1h" });
    t.accepts("a time and a duration will do", &rotation(json!({ "windows": [short] })));
    t.accepts("no days are every day", &window(&json!({ "days": [] })));
    t.accepts(
        "a window may open every day",
        &window(&json!({ "days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"] })),
    );
    t.refuses(
        "a day is named once",
        &window(&json!({ "days": ["Tue", "Thu", "Tue"] })),
        "name each day once, for example days: [Tue, Thu]; leave the list out for every day",
    );
    for day in ["Tuesday", "tue", "Weekend", "Unknown", "2", ""] {
        t.schema_refuses(
            format!("{day:?} is no day"),
            &window(&json!({ "days": [day] })),
            "supported values: \"Mon\", \"Tue\", \"Wed\", \"Thu\", \"Fri\", \"Sat\", \"Sun\"",
        );
    }
    t.schema_refuses(
        "a week has seven days",
        &window(&json!({ "days": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon"] })),
        "must have at most 7 items",
    );
    for field in ["from", "duration"] {
        t.schema_refuses(
            format!("a window cannot do without {field}"),
            &window(&json!({ field: null })),
            "Required value",
        );
    }
    t.accepts("16 windows are allowed", &rotation(json!({ "windows": vec![short.clone(); 16] })));
    t.schema_refuses(
        "17 are too many",
        &rotation(json!({ "windows": vec![short; 17] })),
        "must have at most 16 items",
    );
}

fn window_times(t: &mut Table) {
    for from in ["00:00", "09:05", "19:30", "23:59"] {
        t.accepts(format!("a window may open at {from}"), &window(&json!({ "from": from })));
    }
    for from in ["", "2:00", "24:00", "12:60", "02:00:00", "2 am", "02.00", "0200", "02:00\n", "02:00+01:00"]
    {
        t.refuses(
            format!("a window cannot open at {from:?}"),
            &window(&json!({ "from": from })),
            "for example \"02:00\" or \"22:30\"",
        );
    }
    t.schema_refuses(
        "a time is a text, as YAML may take one for a number",
        &window(&json!({ "from": 1350 })),
        "from: Invalid value: \"integer\"",
    );
    for duration in ["1ms", "90m", "23h59m", "24h", "1440m"] {
        t.accepts(format!("a window may be open for {duration}"), &window(&json!({ "duration": duration })));
    }
    for duration in ["", "0s", "0h0m", "-2h", "24h1ms", "25h", "1d", "99999h", "2"] {
        t.refuses(
            format!("a window cannot be open for {duration:?}"),
            &window(&json!({ "duration": duration })),
            "a window is open for more than 0s and at most 24h, for example 2h or 90m",
        );
    }
    let longest = "Z".repeat(64);
    for zone in [
        "UTC",
        "Europe/Berlin",
        "America/Argentina/ComodRivadavia",
        "America/Port-au-Prince",
        "Etc/GMT+12",
        "EST5EDT",
        "Europe/Atlantis",
        &longest,
    ] {
        t.accepts(format!("{zone} may be a time zone"), &window(&json!({ "timeZone": zone })));
    }
    for zone in [
        "",
        "Europe/",
        "/etc/localtime",
        "../UTC",
        "Europe//Berlin",
        "New York",
        "+02:00",
        "Zürich",
        "UTC\n",
        &"Z".repeat(65),
    ] {
        t.refuses(
            format!("{zone:?} is no name of a time zone"),
            &window(&json!({ "timeZone": zone })),
            "for example Europe/Berlin or America/New_York; leave it out for UTC",
        );
    }
}

fn rollouts(t: &mut Table) {
    let rollout = |rollout: Value| json!({ "spec": { "rollout": rollout } });
    t.accepts("a rollout may say nothing", &rollout(json!({})));
    t.accepts(
        "a rollout may say it all",
        &rollout(json!({ "restart": "Stale", "allowGap": false, "maxConcurrent": 1 })),
    );
    t.accepts(
        "nothing may be restarted, or a hundred at a time",
        &rollout(json!({ "restart": "None", "allowGap": true, "maxConcurrent": 100 })),
    );
    t.schema_refuses(
        "what is restarted is one of two",
        &rollout(json!({ "restart": "All" })),
        "supported values: \"Stale\", \"None\"",
    );
    t.schema_refuses(
        "a gap is allowed or not",
        &rollout(json!({ "allowGap": "sometimes" })),
        "spec.rollout.allowGap: Invalid value: \"string\"",
    );
    t.schema_refuses(
        "one at least is restarted at a time",
        &rollout(json!({ "maxConcurrent": 0 })),
        "should be greater than or equal to 1",
    );
    t.schema_refuses(
        "a hundred at most are restarted at a time",
        &rollout(json!({ "maxConcurrent": 101 })),
        "should be less than or equal to 100",
    );
}

fn edits(t: &mut Table) {
    t.accepts(
        "an empty value of a template counts as absent",
        &json!({ "spec": {
            "rotation": {
                "every": null, "minOverlap": null, "quietFor": null, "maxOverlap": null, "onRolloutFailure": null,
            },
            "rollout": { "restart": null, "allowGap": null, "maxConcurrent": null },
        } }),
    );
    t.accepts("whole blocks may be empty", &json!({ "spec": { "rotation": null, "rollout": null } }));
    t.update(
        "rotation and rollout may change",
        &rotation(json!({ "every": "720h" })),
        &json!({ "spec": {
            "rotation": { "every": "168h", "windows": [{ "from": "02:00", "duration": "2h" }], "quietFor": "48h" },
            "rollout": { "restart": "None" },
        } }),
        Outcome::Accepted,
    );
    t.update(
        "an edit of a rotation is held to the same rules",
        &rotation(json!({ "every": "720h" })),
        &rotation(json!({ "every": "720h", "maxOverlap": "12h" })),
        Outcome::Refused("maxOverlap (default: 168h) must be as long as"),
    );
}
