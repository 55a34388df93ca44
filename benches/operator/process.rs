//! What Linux says of processes and of the machine.

use std::{collections::HashMap, fs, time::Duration};

/// Ticks of `/proc/<pid>/stat` in a second: `USER_HZ`, 100 on every architecture that we run on.
const TICKS: u32 = 100;

/// Processor time that a process has used.
pub(crate) fn cpu(pid: u32) -> Duration {
    stat(pid).map(|stat| stat.cpu).unwrap_or_default()
}

/// Processor time of this process's children and their children, but for those that are named.
pub(crate) fn cpu_of_others(excluded: &[u32]) -> Duration {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let all: HashMap<u32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let ours = std::process::id();
    let below = |mut pid: u32| loop {
        match all.get(&pid) {
            _ if excluded.contains(&pid) => return false,
            Some(stat) if stat.parent == ours => return true,
            Some(stat) => pid = stat.parent,
            None => return false,
        }
    };
    all.iter().filter(|(pid, _)| below(**pid)).map(|(_, stat)| stat.cpu).sum()
}

struct Stat {
    parent: u32,
    cpu: Duration,
}

/// `None`: the process is gone.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything; the third field follows it.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    let [parent, user, system] = [ticks(1)?, ticks(11)?, ticks(12)?];
    Some(Stat { parent, cpu: Duration::from_secs(1) * (user + system) / TICKS })
}

/// Resident memory now, and the most that there was.
pub(crate) fn memory(pid: u32) -> (String, String) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kibibytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        format!("{:.1} MiB", kibibytes / 1024.0)
    };
    (field("VmRSS"), field("VmHWM"))
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after_colon = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
    let kibibytes: f64 =
        memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default();
    format!(
        "{} × {}, {:.0} GiB, Linux {}; built with debug assertions {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        after_colon(&read("/proc/cpuinfo"), "model name"),
        kibibytes / 1024.0 / 1024.0,
        read("/proc/sys/kernel/osrelease").trim(),
        if cfg!(debug_assertions) { "on (not the profile of releases)" } else { "off" },
    )
}
