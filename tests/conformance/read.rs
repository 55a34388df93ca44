//! GET and lists.

use http::{Method, Request, header};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, names, said, secret};

/// Five Secrets with labels.
async fn five(subject: &Subject) {
    for (name, labels) in [
        ("a", json!({"team": "red", "tier": "web"})),
        ("b", json!({"team": "blue"})),
        ("c", json!({"team": "red"})),
        ("d", json!({"example.com/other": ""})),
        ("e", json!({})),
    ] {
        let mut one = secret(name);
        one["metadata"]["labels"] = labels;
        subject.post(&subject.secrets_path(), &one).await;
    }
}

async fn accepting(subject: &Subject, path: &str, accept: &str) -> super::Answer {
    subject.send(Request::get(path).header(header::ACCEPT, accept).body(Vec::new()).unwrap()).await
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "what is not there is not found",
        async |subject: Subject| {
            let keys = subject.keys().get("web").await;
            let secrets = subject.secrets().get("web").await;
            let accounts = subject.accounts().get(&subject.unique("web")).await;
            let namespaces = subject.namespaces().get(&subject.unique("web")).await;
            json!([said(&keys), said(&secrets), said(&accounts), said(&namespaces)])
        },
        json!(["404 NotFound", "404 NotFound", "404 NotFound", "404 NotFound"]),
    );
    table.case(
        "what is read is what was written",
        async |subject: Subject| {
            let (key, secret, account) =
                (subject.key("web").await, subject.secret("web").await, subject.account("web").await);
            json!([
                subject.keys().get("web").await.unwrap() == key,
                subject.secrets().get("web").await.unwrap() == secret,
                subject.accounts().get(&account.name_any()).await.unwrap() == account,
                subject.get(&format!("{}/web/status", subject.keys_path())).await.code,
            ])
        },
        json!([true, true, true, 200]),
    );
    table.case(
        "only the metadata is read where only that is accepted",
        async |subject: Subject| {
            subject.key("web").await;
            let there = subject.namespaces().get_metadata_opt(&subject.namespace).await.unwrap();
            let missing = subject.namespaces().get_metadata_opt(&subject.unique("missing")).await.unwrap();
            let path = format!("{}/web", subject.keys_path());
            let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
            let raw = accepting(&subject, &path, accept).await;
            let fields: Vec<_> = raw.body.as_object().unwrap().keys().collect();
            json!([
                there.is_some_and(|found| found.uid().is_some()),
                missing.is_some(),
                raw.body["kind"],
                raw.body["apiVersion"],
                fields,
            ])
        },
        json!([true, false, "PartialObjectMetadata", "meta.k8s.io/v1", ["apiVersion", "kind", "metadata"]]),
    );
    table.case(
        "nothing is served in a form that nobody knows",
        async |subject: Subject| {
            let accept = "application/vnd.example";
            json!([
                accepting(&subject, &subject.keys_path(), accept).await.code,
                accepting(&subject, &subject.secrets_path(), accept).await.code,
                accepting(&subject, &subject.secrets_path(), &format!("{accept}, application/json"))
                    .await
                    .code,
            ])
        },
        json!([406, 406, 200]),
    );
    table.case(
        "a list is in the order of names and has a version",
        async |subject: Subject| {
            for name in ["b", "a-b", "a", "a.b"] {
                subject.key(name).await;
                subject.secret(name).await;
            }
            let keys = subject.get(&subject.keys_path()).await;
            let secrets = subject.get(&subject.secrets_path()).await;
            let names = |list: &super::Answer| {
                let items = list.body["items"].as_array().unwrap();
                items.iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>()
            };
            let newest = subject.secrets().get("a.b").await.unwrap().resource_version().unwrap();
            json!({
                "keys": names(&keys), "secrets": names(&secrets),
                "kinds": [keys.body["kind"], keys.body["apiVersion"], secrets.body["kind"], secrets.body["apiVersion"]],
                "kinds of items": [keys.body["items"][0].get("kind"), secrets.body["items"][0].get("kind")],
                "version is new": secrets.version().parse::<u64>().unwrap() >= newest.parse().unwrap(),
                "more": [secrets.metadata().get("continue"), secrets.metadata().get("remainingItemCount")],
            })
        },
        json!({
            "keys": ["a", "a-b", "a.b", "b"], "secrets": ["a", "a-b", "a.b", "b"],
            "kinds": ["ApiKeyList", "keys.bags.fm/v1alpha1", "SecretList", "v1"],
            "kinds of items": ["ApiKey", null], "version is new": true, "more": [null, null],
        }),
    );
    table.case(
        "an empty list is a list",
        async |subject: Subject| {
            let keys = subject.get(&subject.keys_path()).await;
            let missing = subject.keys_path().replace(&subject.namespace, &subject.unique("missing"));
            json!([keys.body["items"], subject.get(&missing).await.body["items"]])
        },
        json!([[], []]),
    );
    table.case(
        "a list of all namespaces is ordered by namespace and name",
        async |subject: Subject| {
            let other = subject.unique("other");
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}});
            subject.post("/api/v1/namespaces", &namespace).await;
            let mark = json!({"case": subject.namespace});
            for path in [subject.keys_path(), subject.keys_path().replace(&subject.namespace, &other)] {
                for name in ["b", "a"] {
                    let mut one = key(name);
                    one["metadata"]["labels"] = mark.clone();
                    subject.post(&path, &one).await;
                }
            }
            let everywhere: Api<bags_operator::api::ApiKey> = Api::all(subject.client.clone());
            let params = ListParams::default().labels(&format!("case={}", subject.namespace));
            let found = everywhere.list(&params).await.unwrap().into_iter().map(|key| {
                format!(
                    "{}/{}",
                    if key.namespace().unwrap() == other { "other" } else { "own" },
                    key.name_any()
                )
            });
            json!(found.collect::<Vec<_>>())
        },
        // A dash comes before the slash that stands between namespace and name.
        json!(["other/a", "other/b", "own/a", "own/b"]),
    );
    table.case(
        "labels select",
        async |subject: Subject| {
            five(&subject).await;
            let mut seen = serde_json::Map::new();
            for selector in [
                "team=red", "team==red", "team!=red", "team in (red, blue)", "team notin (red)", "team", "!team",
                "team=red,tier", "team=red,!tier", "example.com/other", "example.com/other=", "team in (red),tier=web",
            ] {
                let params = ListParams::default().labels(selector);
                seen.insert(selector.to_owned(), json!(names(subject.secrets().list(&params).await.unwrap()).concat()));
            }
            Value::Object(seen)
        },
        json!({
            "team=red": "ac", "team==red": "ac", "team!=red": "bde", "team in (red, blue)": "abc",
            "team notin (red)": "bde", "team": "abc", "!team": "de", "team=red,tier": "a", "team=red,!tier": "c",
            "example.com/other": "d", "example.com/other=": "d", "team in (red),tier=web": "a",
        }),
    );
    table.case(
        "fields select",
        async |subject: Subject| {
            five(&subject).await;
            subject.key("a").await;
            subject.key("b").await;
            let mut seen = Vec::new();
            for selector in [
                "metadata.name=b".to_owned(),
                "metadata.name!=b".to_owned(),
                format!("metadata.namespace={},metadata.name==c", subject.namespace),
                "metadata.namespace=elsewhere".to_owned(),
                "type=Opaque".to_owned(),
            ] {
                let params = ListParams::default().fields(&selector);
                seen.push(names(subject.secrets().list(&params).await.unwrap()).concat());
            }
            for selector in ["metadata.name=a", "spec.accountRef.name=main", "spec.environment!=production"] {
                let params = ListParams::default().fields(selector);
                seen.push(names(subject.keys().list(&params).await.unwrap()).concat());
            }
            json!(seen)
        },
        json!(["b", "acde", "c", "", "abcde", "a", "ab", ""]),
    );
    table.case(
        "what has no namespace is not selected by one",
        async |subject: Subject| {
            let query = "fieldSelector=metadata.namespace%3Ddefault";
            json!([
                subject.get(&format!("/apis/keys.bags.fm/v1alpha1/bagsaccounts?{query}")).await.said(),
                subject.get(&format!("/api/v1/namespaces?{query}")).await.said(),
            ])
        },
        json!(["400 BadRequest", "400 BadRequest"]),
    );
    table.case(
        "a selector that cannot be read is refused",
        async |subject: Subject| {
            let mut seen = Vec::new();
            for query in [
                "labelSelector=a%20b",
                "labelSelector=team%20in%20red",
                "labelSelector=team%3Dnot%20a%20label",
                "fieldSelector=spec.unknown%3Da",
                "fieldSelector=metadata.name",
            ] {
                seen.push(subject.get(&format!("{}?{query}", subject.secrets_path())).await.said());
                seen.push(subject.get(&format!("{}?{query}", subject.keys_path())).await.said());
            }
            json!(seen)
        },
        json!(vec!["400 BadRequest"; 10]),
    );
    table.case(
        "a list comes in pages of one version, whatever happens between them",
        async |subject: Subject| {
            five(&subject).await;
            let page = ListParams::default().limit(2);
            let one = subject.secrets().list(&page).await.unwrap();
            subject.secrets().delete("c", &DeleteParams::default()).await.unwrap();
            subject.secret("cc").await;
            let next = |list: &kube::core::ObjectList<_>| list.metadata.continue_.clone().unwrap();
            let two = subject.secrets().list(&page.clone().continue_token(&next(&one))).await.unwrap();
            let three = subject.secrets().list(&page.continue_token(&next(&two))).await.unwrap();
            let versions = [&one, &two, &three].map(|list| list.metadata.resource_version.clone());
            let left = [&one, &two, &three].map(|list| list.metadata.remaining_item_count);
            json!({
                "left": left,
                "last continues": three.metadata.continue_.as_deref().unwrap_or_default(),
                "one version": versions.iter().all(|version| *version == versions[0]),
                "names": [names(one), names(two), names(three)],
                "now": names(subject.secrets().list(&ListParams::default()).await.unwrap()),
            })
        },
        json!({
            "left": [3, 1, null], "last continues": "", "one version": true, "names": [["a", "b"], ["c", "d"], ["e"]],
            "now": ["a", "b", "cc", "d", "e"],
        }),
    );
    table.case(
        "a page of what is selected does not say how many are left",
        async |subject: Subject| {
            five(&subject).await;
            let list = subject.secrets().list(&ListParams::default().labels("team").limit(1)).await.unwrap();
            json!([list.metadata.continue_.is_some(), list.metadata.remaining_item_count, names(list)])
        },
        json!([true, null, ["a"]]),
    );
    table.case(
        "a list is continued only with what the server gave",
        async |subject: Subject| {
            let path = format!("{}?limit=1&continue=made-up", subject.secrets_path());
            json!(subject.get(&path).await.said())
        },
        json!("400 BadRequest"),
    );
    table.case(
        "a list shows a version that was",
        async |subject: Subject| {
            subject.secret("a").await;
            let then = subject.secret("b").await.resource_version().unwrap();
            subject.secret("c").await;
            subject.secrets().delete("a", &DeleteParams::default()).await.unwrap();
            let exact =
                format!("{}?resourceVersion={then}&resourceVersionMatch=Exact", subject.secrets_path());
            let exact = subject.get(&exact).await;
            let names =
                exact.body["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone());
            let newer = ListParams::default().at(&then).matching(kube::api::VersionMatch::NotOlderThan);
            json!([
                names.collect::<Vec<_>>(),
                exact.version() == then,
                super::names(subject.secrets().list(&newer).await.unwrap()).contains(&"b".to_owned()),
                said(&subject.secrets().list(&ListParams::default().match_any()).await),
            ])
        },
        json!([["a", "b"], true, true, "done"]),
    );
    table.case(
        "a list of a version or of a length that is not a number is refused",
        async |subject: Subject| {
            subject.secret("a").await;
            let mut seen = Vec::new();
            for query in ["resourceVersion=new", "limit=few", "limit=-1", "limit=0"] {
                seen.push(subject.get(&format!("{}?{query}", subject.secrets_path())).await.said());
                seen.push(subject.get(&format!("{}?{query}", subject.keys_path())).await.said());
            }
            json!(seen)
        },
        json!(["400 BadRequest", "400 BadRequest", "400 BadRequest", "400 BadRequest", 200, 200, 200, 200]),
    );
    table.case(
        "a list of metadata says what it is",
        async |subject: Subject| {
            subject.secret("web").await;
            let list = subject.secrets().list_metadata(&ListParams::default()).await.unwrap();
            let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
            let raw = accepting(&subject, &subject.secrets_path(), accept).await;
            let fields: Vec<_> = raw.body["items"][0].as_object().unwrap().keys().collect();
            json!([
                names(list),
                raw.body["kind"],
                raw.body["apiVersion"],
                raw.body["items"][0]["kind"],
                fields
            ])
        },
        json!([
            ["web"],
            "PartialObjectMetadataList",
            "meta.k8s.io/v1",
            "PartialObjectMetadata",
            ["apiVersion", "kind", "metadata"],
        ]),
    );
    table.case(
        "paths that lead nowhere are not found",
        async |subject: Subject| {
            let inside = format!("/api/v1/namespaces/{}", subject.namespace);
            let mut seen = Vec::new();
            for path in [
                "/apis/keys.bags.fm/v1alpha1/unknown".to_owned(),
                "/apis/keys.bags.fm/v2/apikeys".to_owned(),
                "/apis/unknown.bags.fm/v1/apikeys".to_owned(),
                format!("{inside}/unknown"),
                "/api/v1/unknown".to_owned(),
                format!("{inside}/secrets/web/status"),
                format!("{inside}/apikeys"),
                format!("/apis/keys.bags.fm/v1alpha1/namespaces/{}/bagsaccounts", subject.namespace),
                "/unknown".to_owned(),
            ] {
                seen.push(subject.get(&path).await.code);
            }
            json!(seen)
        },
        json!([404, 404, 404, 404, 404, 404, 404, 404, 404]),
    );
    table.case(
        "methods that a path does not know are not allowed, and some that it knows are a surprise",
        async |subject: Subject| {
            subject.key("web").await;
            subject.secret("web").await;
            let mut seen = Vec::new();
            for (path, object) in
                [(subject.keys_path(), key("other")), (subject.secrets_path(), secret("other"))]
            {
                seen.push(subject.post(&format!("{path}/web"), &object).await.said());
                seen.push(subject.put(&path, &object).await.said());
                seen.push(subject.merge(&path, &json!({})).await.said());
            }
            let everywhere = ["/api/v1/secrets", "/apis/keys.bags.fm/v1alpha1/apikeys"];
            seen.push(subject.post(everywhere[0], &secret("web")).await.said());
            seen.push(json!(subject.post(everywhere[1], &key("web")).await.code));
            for path in everywhere {
                seen.push(json!(
                    subject.delete(&format!("{path}?labelSelector=none"), &json!({})).await.code
                ));
            }
            let status = format!("{}/web/status", subject.keys_path());
            seen.push(subject.post(&status, &key("web")).await.said());
            seen.push(subject.call(Method::DELETE, &status, "application/json", Vec::new()).await.said());
            json!(seen)
        },
        json!([
            201,
            "400 BadRequest",
            "400 BadRequest",
            "405 MethodNotAllowed",
            "405 MethodNotAllowed",
            "405 MethodNotAllowed",
            "405 MethodNotAllowed",
            404,
            405,
            404,
            "405 MethodNotAllowed",
            "405 MethodNotAllowed",
        ]),
    );
    table.case(
        "a list that must not be older than the future is not answered",
        async |subject: Subject| {
            let far = subject.get(&format!("{}?resourceVersion=9000000000", subject.secrets_path())).await;
            json!([far.said(), far.body["details"]["causes"][0]["reason"]])
        },
        json!(["504 Timeout", "ResourceVersionTooLarge"]),
    );
    table.case(
        "an object is created, read, listed and deleted where it is cluster-scoped",
        async |subject: Subject| {
            let account = subject.account("web").await;
            let name = account.name_any();
            let params = ListParams::default().fields(&format!("metadata.name={name}"));
            let listed = subject.accounts().list(&params).await.unwrap();
            let again = subject
                .accounts()
                .create(
                    &PostParams::default(),
                    &from(json!({
                        "apiVersion": "keys.bags.fm/v1alpha1", "kind": "BagsAccount",
                        "metadata": {"name": name, "namespace": "ignored"}, "spec": account.spec,
                    })),
                )
                .await;
            let deleted = subject.accounts().delete(&name, &DeleteParams::default()).await;
            json!([
                account.namespace(),
                names(listed) == [name.clone()],
                said(&again),
                said(&deleted),
                said(&subject.accounts().get(&name).await),
            ])
        },
        json!([null, true, "409 AlreadyExists", "done", "404 NotFound"]),
    );
}
