//! Names of keys: what a key is for, and which cluster and attempt made it.

/// `production`, `web-dashboard` → `Production-Web-Dashboard`.
#[must_use]
pub fn default_key_name(environment: &str, application: &str) -> String {
    environment
        .split(['-', '.'])
        .chain(application.split(['-', '.']))
        .filter(|word| !word.is_empty())
        .map(capitalised)
        .collect::<Vec<_>>()
        .join("-")
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The full name at Bags: `<keyName>-<cluster>-<attempt>`, cluster = the first 8 characters of the uid of
/// `kube-system`. Unique, so that a lost key can be found and a replacement differs.
#[must_use]
pub fn full_key_name(key_name: &str, cluster: &str, attempt: &str) -> String {
    format!("{key_name}-{}-{attempt}", cluster_mark(cluster))
}

/// The first 8 characters of a cluster's uid.
#[must_use]
pub fn cluster_mark(cluster: &str) -> &str {
    cluster.get(..8).unwrap_or(cluster)
}

/// Whether a text may be a DNS subdomain (RFC 1123) of at most so many characters: what the API server allows as the name
/// of most objects.
#[must_use]
pub fn is_subdomain(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.split('.').all(is_label)
}

/// Whether a text may be a DNS label (RFC 1123): what the API server allows as the name of a namespace.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_says_environment_and_application() {
        assert_eq!(default_key_name("production", "web-dashboard"), "Production-Web-Dashboard");
        assert_eq!(default_key_name("staging", "api.v2"), "Staging-Api-V2");
    }

    #[test]
    fn names_are_what_the_api_server_allows() {
        for good in ["web", "web-dashboard", "api.v2", "0"] {
            assert!(is_subdomain(good, 52), "{good}");
        }
        let long = "a".repeat(53);
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "A", "a/b", "ü", "a\n", &long] {
            assert!(!is_subdomain(bad, 52), "{bad}");
        }
        assert!(is_label("shop") && !is_label("shop.a") && !is_label(&"a".repeat(64)));
    }

    #[test]
    fn the_full_name_ends_with_cluster_and_attempt() {
        let name = full_key_name("Production-Web", "0123456789ab", "abcdefghij");
        assert_eq!(name, "Production-Web-01234567-abcdefghij");
    }
}
