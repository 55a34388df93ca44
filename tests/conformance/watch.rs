//! Watches.

use futures::{StreamExt, TryStreamExt};
use http::{Request, header};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{
        DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
    },
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};

use super::{Subject, Table, from, key, names, secret, told, until_end, version};

const POST: PostParams = PostParams { dry_run: false, field_manager: None };

async fn labelled(subject: &Subject, name: &str, team: Option<&str>) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
    subject.keys().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn here(subject: &Subject) -> String {
    subject.keys().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap()
}

fn object<K>(event: &WatchEvent<K>) -> &K {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object,
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => panic!("it has no object"),
    }
}

/// The first lines of a watch, raw.
async fn lines(subject: &Subject, path: &str, count: usize) -> Vec<Value> {
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Vec::new()).unwrap();
    let stream = subject.client.request_stream(request).await.unwrap();
    let lines = futures::AsyncBufReadExt::lines(stream).take(count);
    lines.map_ok(|line| serde_json::from_str(&line).unwrap()).try_collect().await.unwrap()
}

pub(super) fn add(table: &mut Table) {
    table.case(
        "a watch shows every change after its version, in order, each with a later version",
        async |subject: Subject| {
            subject.key("before").await;
            let from_here = here(&subject).await;
            let mut made = subject.key("web").await;
            made.spec.suspend = Some(true);
            let mut changed = subject.keys().replace("web", &POST, &made).await.unwrap();
            changed.status = Some(from(json!({"phase": "Live"})));
            let reported = subject.keys().replace_status("web", &POST, &changed).await.unwrap();
            subject.keys().delete("web", &DeleteParams::default()).await.unwrap();
            let events = subject.shown(&WatchParams::default(), &from_here).await;
            let versions: Vec<u64> = events.iter().map(|event| version(object(event))).collect();
            let last = object(events.last().unwrap());
            json!({
                "events": events.iter().map(told).collect::<Vec<_>>(),
                "in order": versions.is_sorted() && versions[0] > from_here.parse().unwrap(),
                "deletion is later": version(last) > version(&reported),
                "deleted as it was": last.spec == reported.spec && last.uid() == reported.uid(),
                "phase": super::to(last)["status"]["phase"],
            })
        },
        json!({
            "events": ["ADDED web", "MODIFIED web", "MODIFIED web", "DELETED web"], "in order": true,
            "deletion is later": true, "deleted as it was": true, "phase": "Live",
        }),
    );
    table.case(
        "a watch shows the version of the answer to a write",
        async |subject: Subject| {
            let from_here = here(&subject).await;
            let made = subject.key("web").await;
            let events = subject.shown(&WatchParams::default(), &from_here).await;
            json!([version(object(&events[0])) == version(&made), object(&events[0]).uid() == made.uid()])
        },
        json!([true, true]),
    );
    table.case(
        "a watch does not show what changed nothing, or was only tried",
        async |subject: Subject| {
            let made = subject.key("web").await;
            let from_here = here(&subject).await;
            subject.keys().replace("web", &POST, &made).await.unwrap();
            subject.keys().replace_status("web", &POST, &made).await.unwrap();
            let options = PatchParams::default();
            subject.keys().patch("web", &options, &Patch::Merge(json!({}))).await.unwrap();
            let dry_run = PostParams { dry_run: true, ..PostParams::default() };
            subject.keys().create(&dry_run, &from(key("tried"))).await.unwrap();
            let stale = Patch::Merge(json!({"metadata": {"resourceVersion": "5"}}));
            subject.keys().patch("web", &options, &stale).await.unwrap_err();
            let events = subject.shown(&WatchParams::default(), &from_here).await;
            json!(events.iter().map(told).collect::<Vec<_>>())
        },
        json!([]),
    );
    table.case(
        "a watch shows the mark of a deletion, and at its end the object with the finalizer that it last had",
        async |subject: Subject| {
            let from_here = here(&subject).await;
            let dying = subject.dying_key("web").await;
            subject.keys().delete("web", &DeleteParams::default()).await.unwrap();
            let patch = Patch::Merge(json!({"metadata": {"finalizers": [], "labels": {"last": "word"}}}));
            let freed = subject.keys().patch("web", &PatchParams::default(), &patch).await.unwrap();
            let events = subject.shown(&WatchParams::default(), &from_here).await;
            let last = object(events.last().unwrap());
            json!({
                "events": events.iter().map(told).collect::<Vec<_>>(),
                "marked": object(&events[1]).metadata.deletion_timestamp.is_some(),
                "at the end": [
                    json!(last.finalizers()), json!(last.metadata.deletion_timestamp.is_some()),
                    json!(last.labels().len()), json!(version(last) > version(&dying)),
                    json!(version(last) > version(&freed)), json!(last.metadata.generation),
                ],
            })
        },
        json!({
            "events": ["ADDED web", "MODIFIED web", "DELETED web"], "marked": true,
            "at the end": [["example.com/held"], true, 0, true, true, 2],
        }),
    );
    table.case(
        "a watch without a version, or of version 0, begins with what is there",
        async |subject: Subject| {
            subject.key("a").await;
            subject.key("b").await;
            // Version 0 may be what a cache had a moment ago; a list waits for the cache.
            here(&subject).await;
            let mut seen = Vec::new();
            for query in ["watch=true", "watch=true&resourceVersion=0", "watch=1&resourceVersion="] {
                let path = format!("{}?{query}", subject.keys_path());
                let shown = lines(&subject, &path, 2).await;
                seen.push(
                    shown
                        .iter()
                        .map(|line| json!([line["type"], line["object"]["metadata"]["name"]]))
                        .collect::<Vec<_>>(),
                );
            }
            json!(seen)
        },
        json!([
            [["ADDED", "a"], ["ADDED", "b"]],
            [["ADDED", "a"], ["ADDED", "b"]],
            [["ADDED", "a"], ["ADDED", "b"]],
        ]),
    );
    table.case(
        "a watch by label shows what comes into sight and goes out of it",
        async |subject: Subject| {
            let from_here = here(&subject).await;
            subject.key("web").await;
            labelled(&subject, "web", Some("blue")).await;
            labelled(&subject, "web", Some("red")).await;
            subject
                .keys()
                .patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"suspend": true}})))
                .await
                .unwrap();
            labelled(&subject, "web", Some("blue")).await;
            labelled(&subject, "web", Some("red")).await;
            subject.keys().delete("web", &DeleteParams::default()).await.unwrap();
            let events = subject.shown(&WatchParams::default().labels("team=red"), &from_here).await;
            let versions: Vec<u64> = events.iter().map(|event| version(object(event))).collect();
            let out = object(&events[2]);
            json!([
                events.iter().map(told).collect::<Vec<_>>(),
                versions.is_sorted(),
                out.labels().get("team"),
            ])
        },
        json!([["ADDED web", "MODIFIED web", "DELETED web", "ADDED web", "DELETED web"], true, "red"]),
    );
    table.case(
        "a watch by name shows one object",
        async |subject: Subject| {
            let from_here = here(&subject).await;
            subject.key("a").await;
            subject.key("b").await;
            subject.keys().delete("b", &DeleteParams::default()).await.unwrap();
            subject.key("end").await;
            let path = format!(
                "{}?watch=true&resourceVersion={from_here}&fieldSelector=metadata.name%3Db",
                subject.keys_path()
            );
            let shown = lines(&subject, &path, 2).await;
            json!(
                shown
                    .iter()
                    .map(|line| json!([line["type"], line["object"]["metadata"]["name"]]))
                    .collect::<Vec<_>>()
            )
        },
        json!([["ADDED", "b"], ["DELETED", "b"]]),
    );
    table.case(
        "a watch of one namespace shows that one, and one of all shows all",
        async |subject: Subject| {
            let other = subject.unique("other");
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}});
            subject.post("/api/v1/namespaces", &namespace).await;
            let from_here = here(&subject).await;
            let elsewhere = Subject { namespace: other, ..subject.clone() };
            elsewhere.key("away").await;
            subject.key("home").await;
            let one = subject.shown(&WatchParams::default(), &from_here).await;
            let everywhere: Api<bags_operator::api::ApiKey> = Api::all(subject.client.clone());
            let all = everywhere.watch(&WatchParams::default(), &from_here).await.unwrap();
            let all = until_end(&subject.namespace, all).await;
            let ours = [subject.namespace.clone(), elsewhere.namespace.clone()];
            let all = all.iter().filter(|event| ours.contains(&object(event).namespace().unwrap()));
            json!([one.iter().map(told).collect::<Vec<_>>(), all.map(told).collect::<Vec<_>>()])
        },
        json!([["ADDED home"], ["ADDED away", "ADDED home"]]),
    );
    table.case(
        "a watch of Secrets says of each what it is",
        async |subject: Subject| {
            let from_here = subject.secret("before").await.resource_version().unwrap();
            let mut made = subject.secret("web").await;
            made.labels_mut().insert("team".into(), "red".into());
            subject.secrets().replace("web", &POST, &made).await.unwrap();
            subject.secrets().delete("web", &DeleteParams::default()).await.unwrap();
            let path = format!("{}?watch=true&resourceVersion={from_here}", subject.secrets_path());
            let shown = lines(&subject, &path, 3).await;
            let told = |line: &Value| json!([line["type"], line["object"]["kind"], line["object"]["data"]]);
            json!(shown.iter().map(told).collect::<Vec<_>>())
        },
        json!([
            ["ADDED", "Secret", {"value": "b25l"}], ["MODIFIED", "Secret", {"value": "b25l"}],
            ["DELETED", "Secret", {"value": "b25l"}],
        ]),
    );
    table.case(
        "a watch of metadata shows nothing else",
        async |subject: Subject| {
            let from_here = subject.secret("before").await.resource_version().unwrap();
            subject.secret("web").await;
            subject.secret("end").await;
            let api: Api<PartialObjectMeta<Secret>> =
                Api::namespaced(subject.client.clone(), &subject.namespace);
            let events = api.watch_metadata(&WatchParams::default(), &from_here).await.unwrap();
            let events = until_end(&subject.namespace, events).await;
            let kind = |event: &WatchEvent<PartialObjectMeta<_>>| {
                object(event).types.clone().map(|types| types.kind)
            };
            json!([events.iter().map(told).collect::<Vec<_>>(), kind(&events[0])])
        },
        json!([["ADDED web"], "PartialObjectMetadata"]),
    );
    table.case(
        "a watch of a version that is forgotten is told so, and ends",
        async |subject: Subject| {
            subject.key("web").await;
            let old = subject.old_version();
            let events = subject.keys().watch(&WatchParams::default(), &old).await.unwrap();
            let events: Vec<_> = events.map_ok(|event| told(&event)).try_collect().await.unwrap();
            json!(events)
        },
        json!(["ERROR 410 Expired"]),
    );
    table.case(
        "a watch of a version that is no number is refused",
        async |subject: Subject| {
            let path = format!("{}?watch=true&resourceVersion=new", subject.keys_path());
            json!(subject.get(&path).await.said())
        },
        json!(500),
    );
    table.case(
        "a watch that begins with what is there says where that ends",
        async |subject: Subject| {
            subject.key("a").await;
            subject.key("b").await;
            let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
            let shown = lines(&subject, &format!("{}?{query}", subject.keys_path()), 3).await;
            let last = &shown[2]["object"];
            let only = subject.get(&format!("{}?watch=true&sendInitialEvents=true", subject.keys_path())).await;
            json!([
                shown.iter().map(|line| line["type"].clone()).collect::<Vec<_>>(),
                last["metadata"]["annotations"]["k8s.io/initial-events-end"],
                last["metadata"]["resourceVersion"].as_str().is_some_and(|version| version != "0"), last["kind"],
                only.said(),
            ])
        },
        json!([["ADDED", "ADDED", "BOOKMARK"], "true", true, "ApiKey", "422 Invalid"]),
    );
    table.case(
        "a list and a watch from it lose nothing, as the operator's caches use them",
        async |subject: Subject| {
            subject.key("a").await;
            subject.key("b").await;
            let mut seen = Vec::new();
            let events = watcher(subject.keys(), watcher::Config::default().page_size(1));
            futures::pin_mut!(events);
            loop {
                match events.next().await.unwrap().unwrap() {
                    Event::Init => seen.push("init".to_owned()),
                    Event::InitApply(key) => {
                        let name = key.name_any();
                        // Between the pages of the list.
                        if name == "a" {
                            subject.key("c").await;
                            subject.keys().delete("b", &DeleteParams::default()).await.unwrap();
                        }
                        seen.push(format!("listed {name}"));
                    }
                    Event::InitDone => {
                        seen.push("listed".to_owned());
                        subject.keys().delete("a", &DeleteParams::default()).await.unwrap();
                        subject.key("end").await;
                    }
                    Event::Apply(key) if key.name_any() == "end" => break,
                    Event::Apply(key) => seen.push(format!("applied {}", key.name_any())),
                    Event::Delete(key) => seen.push(format!("deleted {}", key.name_any())),
                }
            }
            json!(seen)
        },
        json!(["init", "listed a", "listed b", "listed", "applied c", "deleted b", "deleted a"]),
    );
    table.case(
        "a watch that streams its list shows the same",
        async |subject: Subject| {
            subject.secret("a").await;
            // It may begin with what a cache had a moment ago; a list waits for the cache.
            subject.secrets().list(&ListParams::default()).await.unwrap();
            let config = watcher::Config::default().streaming_lists();
            let events = watcher(subject.secrets(), config);
            futures::pin_mut!(events);
            let mut seen = Vec::new();
            loop {
                match events.next().await.unwrap().unwrap() {
                    Event::Init => seen.push("init".to_owned()),
                    Event::InitApply(found) => seen.push(format!("listed {}", found.name_any())),
                    Event::InitDone => {
                        seen.push("listed".to_owned());
                        subject.post(&subject.secrets_path(), &secret("b")).await;
                    }
                    Event::Apply(found) => {
                        seen.push(format!("applied {}", found.name_any()));
                        break;
                    }
                    Event::Delete(_) => panic!("nothing was deleted"),
                }
            }
            json!(seen)
        },
        json!(["init", "listed a", "listed", "applied b"]),
    );
    table.case(
        "a deleted collection is shown one by one",
        async |subject: Subject| {
            subject.key("a").await;
            subject.key("b").await;
            let from_here = here(&subject).await;
            subject.keys().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
            let events = subject.shown(&WatchParams::default(), &from_here).await;
            let mut events: Vec<_> = events.iter().map(told).collect();
            events.sort_unstable();
            json!([events, names(subject.keys().list(&ListParams::default()).await.unwrap())])
        },
        json!([["DELETED a", "DELETED b"], ["end"]]),
    );
    table.case(
        "a namespace's end is shown in its steps",
        async |subject: Subject| {
            let path = format!("/api/v1/namespaces/{}", subject.namespace);
            let from_here = subject.get(&path).await.version().to_owned();
            subject.delete(&path, &json!({})).await;
            subject.finish(&subject.namespace, true).await;
            let params = WatchParams::default().fields(&format!("metadata.name={}", subject.namespace));
            let events = subject.namespaces().watch(&params, &from_here).await.unwrap();
            futures::pin_mut!(events);
            let first = events.next().await.unwrap().unwrap();
            // Between, the real controller writes conditions.
            let last = loop {
                match events.next().await.unwrap().unwrap() {
                    WatchEvent::Deleted(last) => break last,
                    _ => continue,
                }
            };
            let phase = |namespace: &Namespace| namespace.status.clone().and_then(|status| status.phase);
            json!([
                matches!(first, WatchEvent::Modified(_)),
                phase(object(&first)),
                phase(&last),
                last.spec.and_then(|spec| spec.finalizers),
            ])
        },
        json!([true, "Terminating", "Terminating", ["kubernetes"]]),
    );
}
