//! What a long exploration has run so far: one that was stopped goes on where it stood.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::Path,
};

use super::explore::Totals;

/// The parts that are done, one line each, in a file that is named after the program and its arguments: what another one
/// found is not found by this one.
#[derive(Default)]
pub(crate) struct Kept {
    file: Option<File>,
    done: BTreeMap<String, Totals>,
}

impl Kept {
    /// What this program kept in this folder. A last line that is not whole is of a part that was not done.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut program = DefaultHasher::new();
        program.write(&fs::read(std::env::current_exe()?)?);
        std::env::args_os().skip(1).for_each(|argument| argument.hash(&mut program));
        let path = folder.join(format!("{:016x}.jsonl", program.finish()));
        let lines = fs::read_to_string(&path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(error),
        })?;
        let done =
            lines.lines().filter_map(|line| serde_json::from_str::<(String, Totals)>(line).ok()).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !lines.is_empty() && !lines.ends_with('\n') {
            writeln!(file)?;
        }
        Ok(Self { file: Some(file), done })
    }

    /// What a part came to, now or before.
    pub(crate) fn or_run(&mut self, part: &str, run: impl FnOnce() -> Totals) -> Totals {
        if let Some(done) = self.done.remove(part) {
            return done;
        }
        let totals = run();
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(&(part, &totals)).unwrap_or_else(|error| panic!("{error}"));
            writeln!(file, "{line}").unwrap_or_else(|error| panic!("failed to keep what was run: {error}"));
        }
        totals
    }
}
