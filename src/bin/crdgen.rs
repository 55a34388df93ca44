//! `crdgen` writes the CustomResourceDefinitions of `src/api` to `crds/`; with `--check` it only compares.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bags_operator::api;
use clap::Parser;

/// Writes the CustomResourceDefinitions, one file each.
#[derive(Parser)]
struct Arguments {
    /// Change nothing; fail if a file differs from what would be written.
    #[arg(long)]
    check: bool,
    /// The folder of the files.
    #[arg(long, default_value = "crds", value_name = "FOLDER")]
    out: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to render {name} as YAML")]
    Render { name: String, source: serde_saphyr::ser::Error },
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            for path in stale {
                report(&format!(
                    "{} is not what src/api says; refresh it with: cargo run --bin crdgen",
                    path.display()
                ));
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            report(&format!("{error}{source}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes the files; or, to check, names those that differ.
fn run(arguments: &Arguments) -> Result<Vec<PathBuf>, Error> {
    let mut stale = Vec::new();
    for definition in api::definitions() {
        let path = arguments.out.join(format!("{}.yaml", definition.spec.names.plural));
        let text = serde_saphyr::to_string(&definition)
            .map_err(|source| Error::Render { name: definition.spec.names.kind.clone(), source })?;
        let text =
            format!("# Written by crdgen from src/api. Edit there, then: cargo run --bin crdgen\n{text}");
        if !arguments.check {
            write(&path, &text)?;
        } else if read(&path)?.as_deref() != Some(text.as_str()) {
            stale.push(path);
        }
    }
    Ok(stale)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[expect(clippy::print_stderr, reason = "a command-line program talks to its terminal")]
fn report(line: &str) {
    eprintln!("{line}");
}
