use clap::CommandFactory;

use super::*;

fn parse(flags: &[&str]) -> Result<RunArgs, clap::Error> {
    let line = ["bags-operator", "run", "--namespace=bags-system"].iter().chain(flags);
    let Command::Run(args) = Cli::try_parse_from(line)?.command;
    Ok(*args)
}

fn config(flags: &[&str]) -> Result<Config, ConfigError> {
    Config::try_from(parse(flags).unwrap())
}

fn refusal(flags: &[&str]) -> String {
    config(flags).unwrap_err().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn only_the_namespace_has_to_be_written() {
    let config = config(&[]).unwrap();
    assert_eq!(config.bags_url.as_str(), "https://public-api-v2.bags.fm/api/v1");
    assert_eq!(config.consumer_bags_url, "https://public-api-v2.bags.fm/api/v1");
    assert_eq!(config.namespace, "bags-system");
    assert_eq!((&config.bags_ca_file, config.log_format), (&None, LogFormat::Text));
    assert_eq!(config.timings, Timings::default());
    assert_eq!(config.request_deadline, Duration::from_secs(30));
    assert_eq!((config.requests_per_hour, config.concurrency), (2500, 32));
    assert_eq!(config.admin_listen, "0.0.0.0:8080".parse().unwrap());
}

#[test]
fn http_needs_both_the_flag_and_a_loopback_host() {
    let refused = Err(ConfigError::BagsUrl(BaseUrlError::NotHttps));
    let sandbox = "--bags-url=http://127.0.0.1:7000/api/v1";
    assert_eq!(config(&[sandbox]), refused);
    assert!(config(&[sandbox, "--allow-http-loopback"]).is_ok());
    assert_eq!(config(&["--bags-url=http://bags.example/api/v1", "--allow-http-loopback"]), refused);
}

#[test]
fn consumers_may_have_a_base_url_of_their_own_without_a_slash_at_its_end() {
    let config =
        config(&["--bags-url=https://bags.example/", "--consumer-bags-url=http://proxy.example/v1/"]);
    let config = config.unwrap();
    assert_eq!(config.bags_url.as_str(), "https://bags.example");
    assert_eq!(config.consumer_bags_url, "http://proxy.example/v1");
}

#[test]
fn a_url_that_is_no_base_url_is_refused_without_repeating_a_password() {
    for url in [
        "https://someone:hidden@bags.example/api",
        "https://someone:hidden@",
        "https://bags.example/api?token=hidden",
        "https://bags.example/api#hidden",
        "file:///etc/hidden",
        "",
    ] {
        for flag in ["--bags-url", "--consumer-bags-url"] {
            let message = refusal(&[&format!("{flag}={url}")]);
            assert!(message.starts_with(&format!("{flag}: ")) && !message.contains("hidden"), "{message}");
        }
    }
}

#[test]
fn a_request_may_not_outlive_its_creation() {
    assert!(config(&["--request-deadline=60s"]).is_ok());
    let message = refusal(&["--request-deadline=61s"]);
    assert!(message.contains("--request-deadline (1m1s)") && message.contains("--answer-deadline (1m)"));
    assert_eq!(config(&["--request-deadline=0s"]), Err(ConfigError::NoRequestTime));
}

#[test]
fn durations_of_the_workflows_are_flags_and_are_checked() {
    let quick = config(&["--save-deadline=61s", "--judge-after=62s", "--resync=5s"]).unwrap();
    assert_eq!(quick.timings.save_deadline, Duration::from_secs(61));
    assert_eq!(quick.timings.resync, Duration::from_secs(5));
    assert!(refusal(&["--judge-after=3m"]).contains("longer than --save-deadline (3m)"));
    assert!(parse(&["--resync=soon"]).unwrap_err().to_string().contains("for example 90s"));
}

#[test]
fn a_leader_is_elected_unless_that_is_turned_off() {
    for flags in [&[][..], &["--leader-elect"], &["--leader-elect=true"]] {
        assert_eq!(config(flags).unwrap().leader, Some(LeaderTimings::default()), "{flags:?}");
    }
    assert_eq!(config(&["--leader-elect=false"]).unwrap().leader, None);
    let message = parse(&["--leader-elect=maybe"]).unwrap_err().to_string();
    assert!(message.contains("--leader-elect") && message.contains("true, false"), "{message}");
}

#[test]
fn durations_of_the_election_must_fit_together() {
    let quick = ["--leader-lease=3s", "--leader-renew-deadline=2500ms", "--leader-retry-period=2s"];
    assert!(config(&quick).unwrap().leader.is_some());
    let cases: [(&str, &[&str], &str); 7] = [
        (
            "others take over while the leader still leads",
            &["--leader-lease=10s"],
            "--leader-lease (10s) must be longer than --leader-renew-deadline (10s); lengthen the first or shorten \
             the second",
        ),
        (
            "given up before the first try",
            &["--leader-renew-deadline=2400ms"],
            "--leader-renew-deadline (2s400ms) must be longer than 1.2 times --leader-retry-period (2s); lengthen the \
             first or shorten the second",
        ),
        ("no pause", &["--leader-retry-period=0s"], "for example --leader-retry-period=2s"),
        ("no renew deadline", &["--leader-renew-deadline=0s"], "--leader-renew-deadline (0s) must be longer"),
        ("no whole seconds", &["--leader-lease=15500ms"], "--leader-lease (15s500ms) must be whole seconds"),
        ("longer than anybody waits", &["--leader-lease=2h"], "at most 1h"),
        (
            "also where nobody is elected",
            &["--leader-elect=false", "--leader-lease=0s"],
            "--leader-lease (0s)",
        ),
    ];
    for (case, flags, expected) in cases {
        let message = refusal(flags);
        assert!(message.contains(expected), "{case}: {message}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_the_flag() {
    for flag in [
        "--concurrency=0",
        "--requests-per-hour=29",
        "--admin-listen=8080",
        "--log-format=xml",
        "--log=bags_operator=loud",
        "--namespace=Bags_System",
    ] {
        let message = parse(&[flag]).unwrap_err().to_string();
        let name = flag.split('=').next().unwrap();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn kubeconfig_is_a_list_of_files_and_absent_means_the_service_account() {
    let two = config(&["--kubeconfig=/one/config:/two/config"]).unwrap();
    let paths = vec![PathBuf::from("/one/config"), PathBuf::from("/two/config")];
    assert_eq!(two.kubernetes, KubernetesAccess::Kubeconfig(paths));
    assert_eq!(config(&["--kubeconfig="]).unwrap().kubernetes, KubernetesAccess::InCluster);
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named() {
    let access = KubernetesAccess::Kubeconfig(vec![PathBuf::from("/nowhere/config")]);
    assert_eq!(access.read().await.unwrap_err().to_string(), "failed to read the kubeconfig /nowhere/config");
}

#[test]
fn every_flag_has_help_a_heading_and_a_variable() {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    for argument in
        run.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != "help" && l != "version"))
    {
        let id = argument.get_id();
        assert!(argument.get_help().is_some(), "{id} has no help");
        assert!(argument.get_help_heading().is_some(), "{id} has no heading");
        let variable = argument.get_env().unwrap_or_else(|| panic!("{id} has no variable")).to_str().unwrap();
        assert!(!variable.contains(|c: char| c.is_ascii_lowercase()), "{variable}");
    }
    let begin = run.get_arguments().find(|a| a.get_long() == Some("begin-deadline")).unwrap();
    assert_eq!(begin.get_env().unwrap(), "BAGS_TIMING_BEGIN_DEADLINE");
    assert_eq!(begin.get_help_heading(), Some("Durations of the workflows"));
}

#[test]
fn without_an_address_there_is_no_webhook() {
    assert_eq!(config(&[]).unwrap().webhook, None);
    for alone in ["--webhook-hosts=bags.svc", "--webhook-configuration=bags-operator"] {
        assert!(parse(&[alone]).unwrap_err().to_string().contains("--webhook-listen"), "{alone}");
    }
}

#[test]
fn a_webhook_has_names_and_lives_that_fit_together() {
    let listen = "--webhook-listen=127.0.0.1:8443";
    let hosts = "--webhook-hosts=bags-operator-webhook.bags-system.svc,127.0.0.1,::1";
    let webhook = config(&[listen, hosts, "--webhook-configuration=bags"]).unwrap().webhook.unwrap();
    assert_eq!(webhook.hosts, ["bags-operator-webhook.bags-system.svc", "127.0.0.1", "::1"]);
    assert_eq!(webhook.configuration.as_deref(), Some("bags"));
    let hours = |hours| Duration::from_hours(hours);
    let lives = webhook.lives;
    assert_eq!(
        (lives.authority, lives.leaf, lives.settle),
        (hours(8760), hours(168), Duration::from_mins(10))
    );
    assert!(refusal(&[listen]).contains("--webhook-hosts="));
    assert!(refusal(&[listen, hosts, "--webhook-certificate-life=0s"]).contains("168h"));
    let short = refusal(&[listen, hosts, "--webhook-ca-life=1h", "--webhook-ca-settle=10m"]);
    assert!(short.contains("1h") && short.contains("10m") && short.contains("nine times"), "{short}");
    for wrong in ["https://bags.svc", "Bags.svc", "bags..svc", "-bags.svc", "bags.svc:443", ""] {
        let error = parse(&[listen, &format!("--webhook-hosts={wrong}")]).unwrap_err().to_string();
        assert!(error.contains("write DNS names or addresses"), "{wrong}: {error}");
    }
}

/// The cells of the rows of a table in `docs/flags.md`.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().filter(|row| row.starts_with("| `--"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// `docs/flags.md` has a row for each of them, in their order, and for nothing else; those of the workflows say what the help says.
#[test]
fn the_documentation_has_every_flag_with_its_variable_and_its_default() {
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").unwrap();
    let flag = |argument: &clap::Arg| Some(format!("`--{}`", argument.get_long()?));
    let known = run.get_arguments().filter(|argument| argument.get_env().is_some());
    let known: Vec<[String; 4]> = known
        .map(|argument| {
            let variable = argument.get_env().and_then(|name| name.to_str()).unwrap();
            let default = argument.get_default_values().first().and_then(|value| value.to_str());
            let default = match (default, argument.is_required_set()) {
                (Some(value), _) => format!("`{value}`"),
                (None, true) => "required".to_owned(),
                (None, false) => "words".to_owned(),
            };
            let help = argument.get_help().unwrap().to_string();
            [flag(argument).unwrap(), format!("`{variable}`"), default, help]
        })
        .collect();
    let page = include_str!("../../docs/flags.md");
    let (settings, durations) = page.split_once("\n## Durations of the workflows\n").unwrap();
    let default = |cell: &str| match cell.starts_with('`') || cell == "required" {
        true => cell.to_owned(),
        false => "words".to_owned(),
    };
    let settings = rows(settings).into_iter().map(|row| {
        assert_eq!(row.len(), 5, "{row:?}");
        [row[0].to_owned(), row[1].to_owned(), default(row[2]), String::new()]
    });
    let durations = rows(durations).into_iter().map(|row| {
        let name = row[0].trim_matches('`').trim_start_matches("--").replace('-', "_").to_uppercase();
        let meaning = row[2].trim_end_matches('.').to_owned();
        [row[0].to_owned(), format!("`BAGS_TIMING_{name}`"), default(row[1]), meaning]
    });
    let documented: Vec<_> = settings.chain(durations).collect();
    for (written, [name, variable, default, help]) in documented.iter().zip(&known) {
        assert_eq!(written[..3], [name.clone(), variable.clone(), default.clone()]);
        assert!(written[3].is_empty() || written[3] == *help, "{name}: the help says: {help}");
    }
    assert_eq!(documented.len(), known.len());
    let without: Vec<_> = run.get_arguments().filter(|argument| argument.get_env().is_none()).collect();
    assert!(without.iter().all(|argument| ["help", "version"].contains(&argument.get_id().as_str())));
}

/// A row of `docs/flags.md` names a value of the chart where the chart sets the flag, and nowhere else.
#[test]
fn the_documentation_says_which_flags_the_chart_sets() {
    let pod = include_str!("../../charts/bags-operator/templates/deployment.yaml");
    let (settings, durations) =
        include_str!("../../docs/flags.md").split_once("\n## Durations of the workflows\n").unwrap();
    for row in rows(settings) {
        let (flag, variable) = (row[0].trim_matches('`'), row[1].trim_matches('`'));
        let is_set = pod.contains(&format!("{flag}=")) || pod.contains(&format!("name: {variable}\n"));
        assert_eq!(is_set, !row[3].is_empty(), "{flag}");
    }
    for row in rows(durations) {
        assert!(!pod.contains(&format!("{}=", row[0].trim_matches('`'))), "{row:?}");
    }
}
