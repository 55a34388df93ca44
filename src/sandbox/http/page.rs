//! The page: one table like the dashboard's list of keys, where a person revokes.

use std::fmt::Write;

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use super::super::keys::{KeyState, KeyView};
use super::super::{Sandbox, UserView};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<link rel="icon" href="data:,">
<title>Bags sandbox: API keys</title>
<style>
:root { color-scheme: light dark; --line: #8883; --soft: #888; --good: #1a7f37; --bad: #b42318; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.4rem; margin: 0; }
p { color: var(--soft); margin: .25rem 0 1.5rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; font-size: .85rem; color: var(--soft); }
th, td { padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.id, td.time { font: 13px/1.4 ui-monospace, monospace; white-space: nowrap; }
.state { display: inline-block; padding: 0 .6em; border-radius: 1em; font-size: .85rem; border: 1px solid; }
.active { color: var(--good); } .revoked { color: var(--bad); }
tr.gone td { color: var(--soft); }
form { margin: 0; }
button { font: inherit; font-size: .85rem; padding: .1rem .8rem; border-radius: .4rem; cursor: pointer;
  border: 1px solid var(--bad); color: var(--bad); background: transparent; }
button:hover { color: #fff; background: var(--bad); }
</style>
</head>
<body>
<h1>API keys</h1>
"#;

const TABLE: &str = "<table>\n<thead><tr><th>Name</th><th>Id</th><th>User</th><th>Created</th>\
<th>Last use</th><th>State</th><th></th></tr></thead>\n<tbody>\n";

pub(super) async fn page(State(sandbox): State<Sandbox>) -> Html<String> {
    let (keys, users, now) = sandbox.with(|state, now| (state.keys(), state.users(), now));
    Html(render(&keys, &users, now))
}

/// A person's click. A click that another site made is none.
pub(super) async fn revoke(
    State(sandbox): State<Sandbox>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin") {
        return (StatusCode::FORBIDDEN, "only the page's own button revokes").into_response();
    }
    match sandbox.revoke_key(&id) {
        Ok(_) => Redirect::to("/").into_response(),
        Err(error) => (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    }
}

fn render(keys: &[KeyView], users: &[UserView], now: Timestamp) -> String {
    let active = keys.iter().filter(|key| key.state == KeyState::Active).count();
    let mut html = String::from(HEAD);
    // Writing into a String cannot fail.
    let _ = write!(
        html,
        "<p>Bags sandbox, {}: {active} active of {} keys, {} users</p>\n{TABLE}",
        time(now),
        keys.len(),
        users.len()
    );
    for key in keys.iter().rev() {
        let user = users.iter().find(|user| user.id == key.user);
        row(&mut html, key, user.map_or("", |user| user.username.as_str()));
    }
    html.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    html
}

fn row(html: &mut String, key: &KeyView, username: &str) {
    let KeyView { id, name, user: _, state, created_at, revoked_at, last_used_at } = key;
    let (class, state) = match (state, revoked_at) {
        (KeyState::Active, _) => ("", "<span class=\"state active\">active</span>".to_owned()),
        (KeyState::Revoked, at) => {
            let title = at.map(time).unwrap_or_default();
            (" class=\"gone\"", format!("<span class=\"state revoked\" title=\"{title}\">revoked</span>"))
        }
    };
    let button = match key.state {
        KeyState::Active => format!(
            "<form method=\"post\" action=\"/keys/{}/revoke\"><button>Revoke</button></form>",
            escaped(id)
        ),
        KeyState::Revoked => String::new(),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(
        html,
        "<tr{class}><td>{}</td><td class=\"id\">{}</td><td>{}</td><td class=\"time\">{}</td>\
         <td class=\"time\">{}</td><td>{state}</td><td>{button}</td></tr>",
        escaped(name),
        escaped(id),
        escaped(username),
        time(*created_at),
        last_used_at.map_or_else(|| "never".to_owned(), time),
    );
}

fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Text as it may stand in HTML, between tags and within quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_cell() {
        let key = KeyView {
            id: "id".into(),
            name: "<script>alert('\"&')</script>".into(),
            user: String::new(),
            state: KeyState::Active,
            created_at: Timestamp::UNIX_EPOCH,
            revoked_at: None,
            last_used_at: None,
        };
        let html = render(&[key], &[], Timestamp::UNIX_EPOCH);
        assert!(html.contains("<td>&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;</td>"));
        assert!(!html.contains("<script"));
    }

    #[test]
    fn only_active_keys_have_a_button() {
        let mut key = KeyView {
            id: "the-id".into(),
            name: "Production-Web".into(),
            user: String::new(),
            state: KeyState::Active,
            created_at: Timestamp::UNIX_EPOCH,
            revoked_at: None,
            last_used_at: None,
        };
        assert!(
            render(std::slice::from_ref(&key), &[], Timestamp::UNIX_EPOCH).contains("/keys/the-id/revoke")
        );
        key.state = KeyState::Revoked;
        assert!(!render(&[key], &[], Timestamp::UNIX_EPOCH).contains("/keys/the-id/revoke"));
    }
}
