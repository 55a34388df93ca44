//! Where the service is: checked once, when the configuration is read.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use url::{Host, Url};

/// The service's documented address.
pub const DEFAULT_BASE_URL: &str = "https://public-api-v2.bags.fm/api/v1";

/// The path that ends the documented base URL; `/ping` lies beside it, not beneath.
const VERSION_PATH: &str = "/api/v1";

/// The address that every path of the service hangs on: https, or http on loopback where that is allowed.
/// Credentials go to no other host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    /// Without a slash at the end.
    text: String,
    https: bool,
}

/// What is wrong with a base URL, and what to write instead. It does not repeat the text: people put
/// passwords into URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Not a URL at all.
    #[error("failed to read the Bags URL: not an absolute URL; write one such as {DEFAULT_BASE_URL}")]
    NotAUrl,
    /// Credentials would travel in clear text.
    #[error(
        "failed to accept the Bags URL: only https is allowed (and http to a loopback address where --allow-http-loopback is set); write one such as {DEFAULT_BASE_URL}"
    )]
    NotHttps,
    /// `https://user:password@host`.
    #[error(
        "failed to accept the Bags URL: it holds a user name or password; credentials belong into the Secret that a BagsAccount names"
    )]
    HasCredentials,
    /// A query or a fragment would be lost.
    #[error(
        "failed to accept the Bags URL: it ends in a query or a fragment; leave out what follows `?` or `#`"
    )]
    HasQuery,
}

impl BaseUrl {
    /// Checks an address. `allow_http_loopback` admits `http://` for `localhost` and loopback addresses, for a
    /// sandbox on the same machine.
    ///
    /// # Errors
    /// A [`BaseUrlError`] that says what to write.
    pub fn parse(text: &str, allow_http_loopback: bool) -> Result<Self, BaseUrlError> {
        let url = Url::parse(text.trim()).map_err(|_| BaseUrlError::NotAUrl)?;
        let host = url.host().ok_or(BaseUrlError::NotAUrl)?;
        let https = match url.scheme() {
            "https" => true,
            "http" if allow_http_loopback && is_loopback(&host) => false,
            _ => return Err(BaseUrlError::NotHttps),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUrlError::HasCredentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUrlError::HasQuery);
        }
        let text = url.as_str().trim_end_matches('/').to_owned();
        // The two crates differ in what they take for a URL; everything later relies on both.
        text.parse::<Uri>().map_err(|_| BaseUrlError::NotAUrl)?;
        Ok(Self { text, https })
    }

    /// The address, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether requests are encrypted; else the host is a loopback address.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The address of one of the service's paths, `None` where the path is not plainly one
    /// (`/a/b`: no query, no escape, no step upwards).
    pub(in crate::bags) fn join(&self, path: &str) -> Option<Uri> {
        let segments = path.strip_prefix('/')?;
        let plain = path.len() <= 256
            && segments.split('/').all(|segment| {
                !matches!(segment, "" | "." | "..")
                    && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            });
        plain.then(|| format!("{}{path}", self.text).parse().ok())?
    }

    /// The address of the health check: beside the version's path.
    pub(in crate::bags) fn ping(&self) -> Option<Uri> {
        let root = self.text.strip_suffix(VERSION_PATH).unwrap_or(&self.text);
        format!("{root}/ping").parse().ok()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The name `localhost` counts: resolvers answer it with loopback addresses (RFC 6761, section 6.3).
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_accepted_and_http_on_loopback_where_allowed() {
        let cases = [
            ("https://public-api-v2.bags.fm/api/v1", false, Ok("https://public-api-v2.bags.fm/api/v1")),
            (" https://bags.example/api/v1/ \n", false, Ok("https://bags.example/api/v1")),
            ("https://bags.example", false, Ok("https://bags.example")),
            ("http://127.0.0.1:8080/api/v1", true, Ok("http://127.0.0.1:8080/api/v1")),
            ("http://[::1]:8080", true, Ok("http://[::1]:8080")),
            ("http://localhost:8080/api/v1", true, Ok("http://localhost:8080/api/v1")),
            ("http://127.0.0.1:8080/api/v1", false, Err(BaseUrlError::NotHttps)),
            ("http://bags.example", true, Err(BaseUrlError::NotHttps)),
            ("http://127.0.0.1.bags.example", true, Err(BaseUrlError::NotHttps)),
            ("http://localhost.bags.example", true, Err(BaseUrlError::NotHttps)),
            ("ftp://127.0.0.1", true, Err(BaseUrlError::NotHttps)),
            ("public-api-v2.bags.fm", false, Err(BaseUrlError::NotAUrl)),
            ("", false, Err(BaseUrlError::NotAUrl)),
            ("https://person:word@bags.example", false, Err(BaseUrlError::HasCredentials)),
            ("https://person@bags.example", false, Err(BaseUrlError::HasCredentials)),
            ("https://bags.example/api?x=y", false, Err(BaseUrlError::HasQuery)),
            ("https://bags.example/api#x", false, Err(BaseUrlError::HasQuery)),
        ];
        for (text, allow_http_loopback, expected) in cases {
            let parsed = BaseUrl::parse(text, allow_http_loopback);
            assert_eq!(parsed.as_ref().map(BaseUrl::as_str), expected.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let error = BaseUrl::parse("https://person:word-for-tests@bags.example", false).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("word-for-tests"));
    }

    #[test]
    fn a_path_is_joined_only_where_it_is_plainly_one() {
        let base = BaseUrl::parse("https://bags.example/api/v1", false).unwrap();
        assert_eq!(
            base.join("/agent/dev/keys/revoke").unwrap(),
            "https://bags.example/api/v1/agent/dev/keys/revoke"
        );
        for path in [
            "",
            "/",
            "agent",
            "//other.example/x",
            "/a/../b",
            "/a/./b",
            "/a?b",
            "/a#b",
            "/a%2e",
            "/a b",
            "/a/",
            "@x",
        ] {
            assert_eq!(base.join(path), None, "{path}");
        }
        assert_eq!(base.join(&format!("/{}", "a".repeat(256))), None);
    }

    #[test]
    fn the_health_check_lies_beside_the_version() {
        let ping = |base: &str| BaseUrl::parse(base, false).unwrap().ping().unwrap().to_string();
        assert_eq!(ping(DEFAULT_BASE_URL), "https://public-api-v2.bags.fm/ping");
        assert_eq!(ping("https://proxy.example/bags/api/v1"), "https://proxy.example/bags/ping");
        assert_eq!(ping("https://bags.example/v9"), "https://bags.example/v9/ping");
    }
}
