use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::api::account::Owner;

fn slot(state: SlotState) -> Slot {
    Slot {
        owner: Owner { namespace: "shop".into(), name: "web".into(), uid: "0123".into() },
        key_use: "production/web".into(),
        revision: 1,
        state,
        attempt: Some("abcdefghij".into()),
        key_name: Some("Production-Web-01234567-abcdefghij".into()),
        key_id: None,
        published: None,
        last_switch: None,
        trigger: None,
        user: None,
        switched_back: None,
        since: Timestamp::UNIX_EPOCH,
        failures: None,
    }
}

fn has(page: &str, line: &str) -> bool {
    page.lines().any(|l| l == line)
}

#[test]
fn names_carry_the_prefix_and_the_page_ends_as_openmetrics_wants() {
    let page = Metrics::new().encode();
    assert!(
        page.lines().filter(|l| l.starts_with("# TYPE")).all(|l| l.contains(" bags_operator_")),
        "{page}"
    );
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn reconciles_and_failures_are_counted_by_closed_labels() {
    let metrics = Metrics::new();
    metrics.reconciled(Kind::ApiKey, ReconcileOutcome::Waiting, Duration::from_millis(20));
    metrics.failed(Kind::BagsAccount, FailureClass::RateLimited(Timestamp::UNIX_EPOCH), "RateLimited");
    metrics.request(Operation::List, Outcome::Done, Some(Duration::from_secs(1)));
    metrics.request(Operation::List, Outcome::Failed(Reason::BudgetSpent), None);
    metrics.key(KeyStep::Made);
    metrics.save_retried();
    let page = metrics.encode();
    for line in [
        r#"bags_operator_reconciles_total{kind="ApiKey",outcome="Waiting"} 1"#,
        r#"bags_operator_reconcile_seconds_bucket{le="0.025",kind="ApiKey"} 1"#,
        r#"bags_operator_failures_total{kind="BagsAccount",class="RateLimited",reason="RateLimited"} 1"#,
        r#"bags_operator_bags_requests_total{operation="list",outcome="done"} 1"#,
        r#"bags_operator_bags_requests_total{operation="list",outcome="budget_spent"} 1"#,
        r#"bags_operator_bags_requests_total{operation="ping",outcome="timeout"} 0"#,
        r#"bags_operator_bags_request_seconds_count{operation="list"} 1"#,
        r#"bags_operator_keys_total{step="Made"} 1"#,
        "bags_operator_save_retries_total 1",
    ] {
        assert!(has(&page, line), "{line} is not in\n{page}");
    }
}

#[test]
fn the_leader_and_the_drained_show_it() {
    let metrics = Metrics::new();
    let shows = |lines: [&str; 2]| {
        let page = metrics.encode();
        assert!(lines.iter().all(|line| has(&page, line)), "{lines:?} are not in\n{page}");
    };
    shows(["bags_operator_leader 0", "bags_operator_drained 0"]);
    metrics.leads(true);
    shows(["bags_operator_leader 1", "bags_operator_drained 0"]);
    metrics.leads(false);
    metrics.drained(true);
    shows(["bags_operator_leader 0", "bags_operator_drained 1"]);
}

#[test]
fn an_object_counts_under_its_latest_problem_only() {
    let metrics = Metrics::new();
    let count = |reason: &str, count: i64| {
        has(
            &metrics.encode(),
            &format!(r#"bags_operator_not_ready{{kind="ApiKey",reason="{reason}"}} {count}"#),
        )
    };
    for uid in ["a", "b", "b"] {
        metrics.problem(Kind::ApiKey, uid, Some("QuotaExceeded"));
    }
    assert!(count("QuotaExceeded", 2));
    metrics.problem(Kind::ApiKey, "b", Some("SecretConflict"));
    assert!(count("QuotaExceeded", 1) && count("SecretConflict", 1));
    metrics.problem(Kind::ApiKey, "a", None);
    metrics.problem(Kind::ApiKey, "b", None);
    metrics.problem(Kind::ApiKey, "b", None);
    assert!(count("QuotaExceeded", 0) && count("SecretConflict", 0));
}

#[test]
fn an_apikey_counts_under_its_phase_and_its_hold_until_it_is_gone() {
    let metrics = Metrics::new();
    let count = |series: &str, count: i64| {
        let page = metrics.encode();
        assert!(has(&page, &format!("bags_operator_{series} {count}")), "{series} is not {count} in\n{page}");
    };
    let (ready, restarting) = (r#"apikeys{phase="Ready"}"#, r#"apikeys{phase="Restarting"}"#);
    let held = r#"rotations_held{kind="ApiKey",reason="RotationHeld"}"#;
    metrics.apikey("a", Some("Ready"), None);
    metrics.apikey("b", Some("Restarting"), Some(Hold::RotationHeld));
    [(ready, 1), (restarting, 1), (held, 1)].into_iter().for_each(|(series, n)| count(series, n));
    metrics.apikey("b", Some("Ready"), None);
    [(ready, 2), (restarting, 0), (held, 0)].into_iter().for_each(|(series, n)| count(series, n));
    metrics.problem(Kind::ApiKey, "a", Some("QuotaExceeded"));
    metrics.apikey_gone("a");
    metrics.apikey_gone("a");
    let problem = r#"not_ready{kind="ApiKey",reason="QuotaExceeded"}"#;
    [(ready, 1), (problem, 0)].into_iter().for_each(|(series, n)| count(series, n));
}

#[test]
fn rotations_count_from_zero_and_tell_how_long_both_keys_were_valid() {
    let metrics = Metrics::new();
    assert!(has(&metrics.encode(), r#"bags_operator_rotations_total{outcome="Finished"} 0"#));
    metrics.rotation(RotationOutcome::Begun, None);
    metrics.rotation(RotationOutcome::Finished, Some(Duration::from_hours(25)));
    metrics.restarted("Deployment");
    metrics.awaited("main", Awaited { revocations: 2, rotations: 1 });
    let page = metrics.encode();
    for line in [
        r#"bags_operator_rotations_total{outcome="Begun"} 1"#,
        r#"bags_operator_rotations_total{outcome="Finished"} 1"#,
        r#"bags_operator_rotations_total{outcome="SwitchedBack"} 0"#,
        r#"bags_operator_rotation_overlap_seconds_bucket{le="86400.0"} 0"#,
        r#"bags_operator_rotation_overlap_seconds_bucket{le="172800.0"} 1"#,
        r#"bags_operator_workload_restarts_total{kind="Deployment"} 1"#,
        r#"bags_operator_account_revocations_awaited{account="main"} 2"#,
        r#"bags_operator_account_rotations_starved{account="main"} 1"#,
    ] {
        assert!(has(&page, line), "{line} is not in\n{page}");
    }
}

#[test]
fn the_oldest_key_in_use_is_dated() {
    let metrics = Metrics::new();
    let dated = |second: i64, state: SlotState, published: Option<i64>| Slot {
        since: Timestamp::from_second(second).unwrap(),
        published,
        ..slot(state)
    };
    let slots = [
        dated(100, SlotState::Revoking, Some(1)),
        dated(200, SlotState::Live, None),
        dated(400, SlotState::Live, Some(3)),
        dated(300, SlotState::Live, Some(2)),
    ];
    let series = r#"bags_operator_account_oldest_key_timestamp_seconds{account="main"}"#;
    metrics.account("main", &slots, &Capacity::default());
    assert!(has(&metrics.encode(), &format!("{series} 300")));
    metrics.account("main", &slots[..2], &Capacity::default());
    assert!(has(&metrics.encode(), &format!("{series} 0")));
}

/// `docs/metrics.md` has a row for each of them, and for nothing else.
#[test]
fn the_documentation_names_every_metric() {
    // A family without a series is on no page: the source has them all.
    let calls = include_str!("../metrics.rs").split("r.register(").skip(1);
    let registered: BTreeSet<&str> = calls.map(|call| call.split('"').nth(1).unwrap()).collect();
    let (table, _) = include_str!("../../docs/metrics.md").split_once("\n## ").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `bags_operator_"));
    let documented: BTreeSet<&str> = rows.map(|row| row.split(['`', '{']).next().unwrap()).collect();
    assert_eq!(documented, registered);
}

#[test]
fn an_account_shows_its_slots_and_sums_and_names_nothing_else() {
    let metrics = Metrics::new();
    let slots = [slot(SlotState::Live), slot(SlotState::Live), slot(SlotState::Unknown("Newer".into()))];
    let capacity = Capacity { limit: 10, used: 4, reserved: 1, unmanaged: 1, available: 5 };
    metrics.account("main", &slots, &capacity);
    let page = metrics.encode();
    for line in [
        r#"bags_operator_ledger_slots{account="main",state="Live"} 2"#,
        r#"bags_operator_ledger_slots{account="main",state="Unknown"} 1"#,
        r#"bags_operator_ledger_slots{account="main",state="Lost"} 0"#,
        r#"bags_operator_account_limit{account="main"} 10"#,
        r#"bags_operator_account_available{account="main"} 5"#,
    ] {
        assert!(has(&page, line), "{line} is not in\n{page}");
    }
    for hidden in ["shop", "0123", "abcdefghij", "Production", "production"] {
        assert!(!page.contains(hidden), "{hidden} is in\n{page}");
    }
}

#[test]
fn a_deleted_account_leaves_no_series() {
    let metrics = Metrics::new();
    for account in ["main", "other"] {
        metrics.account(account, &[slot(SlotState::Live)], &Capacity::default());
        metrics.budget(account, 250);
        metrics.awaited(account, Awaited::default());
    }
    metrics.account_gone("main");
    let page = metrics.encode();
    assert!(!page.contains(r#"account="main""#), "{page}");
    assert!(has(&page, r#"bags_operator_account_requests_remaining{account="other"} 250"#));
}
