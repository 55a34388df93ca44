//! What may be in the programs: rustls with ring and no other TLS. A second provider in the tree makes every rustls
//! builder panic, and one default feature of one crate is enough to bring it in.

use std::{collections::BTreeSet, process::Command};

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
