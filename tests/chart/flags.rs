//! Flags and variables of the pod: the program takes them, and each value arrives.

use std::{collections::BTreeSet, path::Path};

use bags_operator::config::{Cli, Command as Subcommand, Config, LogFormat};
use clap::{CommandFactory, Parser};
use serde_json::json;

use crate::{arguments, pod, template};

fn parse(arguments: &[&str]) -> Result<Config, clap::Error> {
    // What the pod has in its environment.
    let given = ["--namespace=bags-system", "--instance=bags-operator"];
    let line = ["bags-operator"].iter().chain(arguments).chain(&given);
    let Subcommand::Run(arguments) = Cli::try_parse_from(line)?.command;
    Ok(Config::try_from(*arguments).unwrap())
}

pub(crate) fn default_config() -> Config {
    parse(&["run"]).unwrap()
}

#[test]
fn the_program_takes_every_flag_and_without_a_value_changed_they_change_nothing() {
    for set in ["minimal", "cluster-wide"] {
        let config = parse(&arguments(&template(set, &[]))).unwrap();
        let webhook =
            config.webhook.clone().expect("the chart has a webhook, the program by itself has none");
        assert_eq!(Config { webhook: None, ..config }, default_config());
        let least = parse(&["run", "--webhook-listen=0.0.0.0:8443", "--webhook-hosts=localhost"]).unwrap();
        assert_eq!(webhook.lives, least.webhook.unwrap().lives);
    }
}

#[test]
fn each_value_arrives_at_the_program() {
    let objects = template("everything", &[]);
    let config = parse(&arguments(&objects)).unwrap();
    assert_eq!(config.bags_url.as_str(), "https://bags.example/api/v1");
    assert_eq!(config.consumer_bags_url, "http://bags-proxy.example/api/v1");
    assert_eq!(config.request_deadline.as_secs(), 60);
    assert_eq!(config.requests_per_hour, 4_000_000);
    assert_eq!(config.bags_ca_file.as_deref(), Some(Path::new("/etc/bags-operator/ca/bundle.pem")));
    assert_eq!((config.concurrency, config.log_format), (64, LogFormat::Json));
    assert_eq!(config.log_filter, "info,bags_operator=debug");
    assert_eq!(config.admin_listen, "[::]:9090".parse().unwrap());
    assert_eq!(config.timings.resync.as_secs(), 300);
    assert!(config.leader.is_some());
    let webhook = config.webhook.unwrap();
    assert_eq!(webhook.listen, "[::]:9443".parse().unwrap());
    assert_eq!(webhook.hosts, ["bags-operator-webhook.bags-system.svc"]);
    assert_eq!(webhook.configuration.as_deref(), Some("bags-operator"));
    let pod = pod(&objects);
    let container = &pod["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"name": "admin", "containerPort": 9090}, {"name": "webhook", "containerPort": 9443}])
    );
    assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/bags-operator/ca");
    assert_eq!(pod["volumes"], json!([{"name": "ca", "configMap": {"name": "company-ca"}}]));
}

#[test]
fn the_program_reads_the_variables_of_the_pod() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let known: BTreeSet<_> =
        run.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let objects = template("everything", &[]);
    let given = pod(&objects)["containers"][0]["env"].as_array().unwrap();
    let names: Vec<_> = given.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POD_NAMESPACE", "POD_NAME", "BAGS_TIMING_LIMIT_RECHECK"]);
    assert!(names.iter().all(|name| known.contains(name)), "{known:?}");
}
