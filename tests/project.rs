//! What holds for the project as a whole.
//!
//! What may be in the programs: rustls with ring and no other TLS. A second provider in the tree makes every rustls
//! builder panic, and one default feature of one crate is enough to bring it in. And what its pages say of the sources.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Names of the crates in the tree that `cargo tree` prints with these arguments.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix=none", "--format={p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("names of crates are UTF-8");
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn foreign_tls(names: &BTreeSet<String>) -> Vec<&String> {
    let foreign = ["aws-lc", "boring", "native-tls", "rustls-openssl", "schannel", "security-framework"];
    names
        .iter()
        .filter(|name| {
            foreign.iter().any(|f| name.starts_with(f)) || *name == "openssl" || *name == "openssl-sys"
        })
        .collect()
}

#[test]
fn ring_is_the_only_tls_provider_in_programs_and_tests() {
    for edges in ["--edges=normal,build", "--edges=normal,build,dev"] {
        let names = crates(&[edges, "--all-features"]);
        for present in ["bags-operator", "kube", "reqwest", "rustls", "ring"] {
            assert!(names.contains(present), "{present} is not in the tree of {edges}");
        }
        assert_eq!(foreign_tls(&names), Vec::<&String>::new(), "in the tree of {edges}");
    }
}

#[test]
fn the_programs_know_one_type_of_time() {
    let names = crates(&["--edges=normal,build"]);
    assert!(names.contains("jiff") && !names.contains("chrono"));
    // Certificates speak another one, which stays among their crates.
    let mut with_time = crates(&["--edges=normal,build", "--invert=time", "--depth=1"]);
    with_time.remove("time");
    let certificates = ["asn1-rs", "rcgen", "x509-parser", "yasna"].map(str::to_owned);
    assert!(with_time.is_subset(&BTreeSet::from(certificates)), "time is used by {with_time:?}");
}

/// The texts of all files below a folder of the project that end so.
fn texts(folder: &Path, ending: &str) -> String {
    let entries =
        fs::read_dir(folder).expect("the folder can be read").map(|entry| entry.expect("an entry").path());
    let text = |path: std::path::PathBuf| match path.is_dir() {
        true => texts(&path, ending),
        false if path.to_string_lossy().ends_with(ending) => {
            fs::read_to_string(&path).expect("a source is text")
        }
        false => String::new(),
    };
    entries.map(text).collect()
}

#[test]
fn what_a_check_of_the_demo_says_is_heard_wherever_it_is_called() {
    let script =
        "source demo/lib.sh; trap leave EXIT; check() { expect answer 401 200; }; await 1 'the end' check";
    let bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let output = bash.expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("FAILED: answer: expected \"200\", found \"401\""), "{said}");
    assert!(!output.status.success());
}

#[test]
fn every_test_that_the_changelog_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "tests"].map(|folder| texts(&root.join(folder), ".rs")).concat();
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).expect("there is one");
    // Names of tests are sentences: what has few words is something else, as a metric is.
    let is_sentence = |quoted: &&str| {
        let words = quoted.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
        words && quoted.matches('_').count() > 2 && !quoted.starts_with("bags_operator_")
    };
    let named: BTreeSet<&str> = changelog.split('`').skip(1).step_by(2).filter(is_sentence).collect();
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(named.len() > 50, "too few to be all: {}", named.len());
    assert_eq!(missing, Vec::<&&str>::new(), "the changelog names tests that nobody has");
}

#[test]
fn every_condition_and_reason_of_an_account_that_the_documentation_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).expect("there is one");
    let section = page.split("\n## Conditions of a BagsAccount\n").nth(1).expect("there is one");
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.flat_map(|row| row.split(" | ").take(2));
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let is_word = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let names: BTreeSet<&str> = quoted.filter_map(|word| word.split('=').next()).filter(is_word).collect();
    let sources = texts(&root.join("src"), ".rs");
    let missing: Vec<_> = names.iter().filter(|name| !sources.contains(&format!("\"{name}\""))).collect();
    assert!(names.len() > 50, "too few to be all: {}", names.len());
    assert_eq!(missing, Vec::<&&str>::new(), "the documentation names what nobody has");
}
