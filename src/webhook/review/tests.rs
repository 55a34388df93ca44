use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{api::arbitrary, fixtures::lay_over};

/// A review as the API server sends it, with these members of the request over it.
fn review(over: &Value) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74", "kind": {"group": "keys.bags.fm", "version": "v1alpha1", "kind": "ApiKey"},
            "resource": {"group": "keys.bags.fm", "version": "v1alpha1", "resource": "apikeys"},
            "name": "web-dashboard", "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
            "object": {
                "apiVersion": "keys.bags.fm/v1alpha1", "kind": "ApiKey",
                "metadata": {"name": "web-dashboard", "namespace": "shop", "uid": "uid-7", "creationTimestamp": "2026-11-25T10:00:00Z"},
                "spec": {"accountRef": {"name": "main"}, "environment": "production"},
            },
            "oldObject": null, "dryRun": false, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    });
    lay_over(&mut review["request"], over);
    review
}

fn ask(over: &Value) -> Result<Question, Unreadable> {
    read(&serde_json::to_vec(&review(over)).unwrap())
}

fn answer(review: AdmissionReview<DynamicObject>) -> Value {
    let answer = serde_json::to_value(review).unwrap();
    assert_eq!(
        (&answer["apiVersion"], &answer["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    answer["response"].clone()
}

#[test]
fn a_new_apikey_is_read_with_its_namespace_and_uid() {
    let Ok(Question { asked: Asked::Create { key, dry_run }, .. }) = ask(&json!({"dryRun": true})) else {
        panic!()
    };
    assert_eq!((key.owner().namespace.as_str(), key.owner().uid.as_str(), dry_run), ("shop", "uid-7", true));
    assert_eq!(key.key_use(), "production/web-dashboard");
}

#[test]
fn what_cannot_be_read_is_not_sent_back() {
    // DEL is written as it is in JSON, as six characters in an error, and as seven in the answer that quotes the error.
    let long = "\u{7f}".repeat(900_000);
    for pointer in [
        "/apiVersion",
        "/request",
        "/request/operation",
        "/request/dryRun",
        "/request/object/spec/accountRef",
    ] {
        let mut review = review(&json!({}));
        *review.pointer_mut(pointer).unwrap() = json!(long);
        let Err(unreadable) = read(&serde_json::to_vec(&review).unwrap()) else {
            panic!("{pointer} was read")
        };
        let answer = serde_json::to_vec(&unreadable.deny()).unwrap();
        assert!(answer.len() < 4096, "{} bytes were sent back for {pointer}", answer.len());
    }
}

#[test]
fn an_apikey_that_no_api_server_can_ask_about_is_refused() {
    let long = "a".repeat(300);
    let cases = [
        ("uid", "/metadata/uid", ""),
        ("uid", "/metadata/uid", "u/../v"),
        ("uid", "/metadata/uid", long.as_str()),
        ("name", "/metadata/name", "a b"),
        ("name", "/metadata/name", "../secrets"),
        ("name", "/metadata/name", long.as_str()),
        ("namespace", "/metadata/namespace", "shop/apikeys/x?"),
        ("account", "/spec/accountRef/name", "main/status"),
        ("environment", "/spec/environment", "production\n"),
    ];
    for (what, pointer, value) in cases {
        let mut object = review(&json!({}))["request"]["object"].clone();
        *object.pointer_mut(pointer).unwrap() = json!(value);
        let Err(unreadable) = ask(&json!({"object": object, "name": ""})) else {
            panic!("{pointer}: {value}")
        };
        let response = answer(unreadable.deny());
        assert_eq!(response["allowed"], json!(false));
        let said = response["status"]["message"].as_str().unwrap();
        assert!(said.contains(what) && said.contains("only an API server may ask"), "{said}");
    }
    let mut object = review(&json!({}))["request"]["object"].clone();
    object["spec"]["application"] = json!("Not A Name");
    assert!(ask(&json!({"object": object})).is_err());
}

#[test]
fn what_is_no_new_apikey_is_admitted_unseen() {
    for over in [
        json!({"operation": "UPDATE"}),
        json!({"operation": "DELETE", "object": null}),
        json!({"subResource": "status"}),
        json!({"kind": {"group": "", "version": "v1", "kind": "Pod"}}),
        json!({"kind": {"group": "keys.bags.fm", "version": "v1alpha1", "kind": "BagsAccount"}}),
    ] {
        let Ok(question) = ask(&over) else { panic!("{over}") };
        assert!(matches!(question.asked, Asked::Other), "{over}");
        let response = answer(question.admit(Vec::new()));
        assert_eq!((&response["allowed"], &response["uid"]), (&json!(true), &json!("0c9a8d74")), "{over}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason_under_the_requests_uid() {
    let deep = format!("{{\"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&str, Vec<u8>, &str, &str); 8] = [
        ("no JSON", b"garbage".to_vec(), "", "no AdmissionReview"),
        ("nothing", Vec::new(), "", "no AdmissionReview"),
        ("endless nesting", deep.into_bytes(), "", "no AdmissionReview"),
        ("another type", b"[1, 2]".to_vec(), "", "no AdmissionReview"),
        (
            "no request",
            serde_json::to_vec(&json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}))
                .unwrap(),
            "",
            "no request",
        ),
        (
            "an old version",
            {
                let mut review = review(&json!({}));
                review["apiVersion"] = json!("admission.k8s.io/v1beta1");
                serde_json::to_vec(&review).unwrap()
            },
            "0c9a8d74",
            "admissionReviewVersions",
        ),
        (
            "no object",
            serde_json::to_vec(&review(&json!({"object": null}))).unwrap(),
            "0c9a8d74",
            "no object",
        ),
        (
            "no uid of the object",
            {
                let mut review = review(&json!({}));
                review["request"]["object"]["metadata"].as_object_mut().unwrap().remove("uid");
                serde_json::to_vec(&review).unwrap()
            },
            "0c9a8d74",
            "no usable uid",
        ),
    ];
    for (what, body, uid, words) in cases {
        let Err(unreadable) = read(&body) else { panic!("{what} was read") };
        let response = answer(unreadable.deny());
        assert_eq!((&response["allowed"], &response["uid"]), (&json!(false), &json!(uid)), "{what}");
        assert_eq!(response["status"]["code"], json!(400), "{what}");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{what}: {message}");
    }
    let Err(unreadable) = ask(&json!({"object": {"apiVersion": "keys.bags.fm/v1", "kind": "ApiKey",
        "metadata": {"uid": "uid-7"}, "spec": {"account": "main"}}}))
    else {
        panic!("another version was read")
    };
    let response = answer(unreadable.deny());
    assert!(
        response["status"]["message"].as_str().unwrap().contains("cannot be read as keys.bags.fm/v1alpha1")
    );
}

/// A megabyte of it would take thirty as values, and reviews may be judged for seconds, a hundred at a time.
#[test]
fn what_is_not_judged_is_neither_kept_nor_refused_however_wide_or_deep_it_is() {
    let Ok(Question { asked: Asked::Create { key: plain, .. }, .. }) = ask(&json!({})) else { panic!() };
    let wide = json!(vec![0; 500_000]);
    let deep = (0..100).fold(json!({}), |inner, _| json!([inner]));
    for (place, member) in [
        ("", "junk"),
        ("", "response"),
        ("/request", "junk"),
        ("/request", "oldObject"),
        ("/request", "options"),
        ("/request", "userInfo"),
        ("/request/object", "junk"),
        ("/request/object", "status"),
        ("/request/object/metadata", "managedFields"),
        ("/request/object/metadata", "annotations"),
        ("/request/object/metadata", "ownerReferences"),
        ("/request/object/spec", "rotation"),
        ("/request/object/spec", "secret"),
    ] {
        for junk in [&wide, &deep] {
            let mut review = review(&json!({}));
            review.pointer_mut(place).unwrap()[member] = junk.clone();
            let Ok(question) = read(&serde_json::to_vec(&review).unwrap()) else {
                panic!("{place}/{member}")
            };
            let Asked::Create { key, .. } = &question.asked else { panic!("{place}/{member}") };
            assert_eq!((key, question.uid.as_str()), (&plain, "0c9a8d74"), "{place}/{member}");
        }
    }
    let Err(unreadable) = ask(&json!({"uid": "u".repeat(500_000)})) else {
        panic!("a uid of half a megabyte")
    };
    assert_eq!((unreadable.uid.as_str(), unreadable.message.len() < 200), ("", true));
}

#[test]
fn a_refusal_carries_code_reason_and_words_and_one_that_passes_a_pause() {
    let Ok(question) = ask(&json!({})) else { panic!() };
    let denial = Denial { reason: "QuotaExceeded", message: "9 of 10 in use".into(), passing: false };
    let response = answer(question.deny(&denial));
    assert_eq!(response["allowed"], json!(false));
    assert_eq!(
        response["status"],
        json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": "9 of 10 in use"})
    );
    assert_eq!(response["auditAnnotations"], json!({"reason": "QuotaExceeded"}));
    let response = answer(question.deny(&Denial { passing: true, ..denial }));
    assert_eq!(response["status"]["code"], json!(429));
    assert_eq!(response["status"]["details"], json!({"retryAfterSeconds": 1}));
    assert_eq!(answer(question.admit(vec!["the last one".into()]))["warnings"], json!(["the last one"]));
}

proptest! {
    #[test]
    fn whatever_bytes_come_the_answer_is_a_review(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        match read(&body) {
            Ok(question) => drop(answer(question.admit(Vec::new()))),
            Err(unreadable) => prop_assert_eq!(answer(unreadable.deny())["allowed"].clone(), json!(false)),
        }
    }

    #[test]
    fn whatever_object_is_to_be_made_the_answer_is_a_review(object in arbitrary::any_api_key(1_800_000_000)) {
        let read = ask(&json!({"object": object}));
        if let Err(unreadable) = read {
            prop_assert_eq!(answer(unreadable.deny())["uid"].clone(), json!("0c9a8d74"));
        }
    }
}
