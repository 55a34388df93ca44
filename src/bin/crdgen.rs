//! `crdgen` writes the CustomResourceDefinitions of `src/api` to `crds/`, and as templates into the chart; with `--check`
//! it only compares.

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
    /// The folder of the chart's templates.
    #[arg(long, default_value = "charts/bags-operator/templates/crds", value_name = "FOLDER")]
    chart: PathBuf,
}

const HEADER: &str = "# Written by crdgen from src/api. Edit there, then: cargo run --bin crdgen\n";

/// What the chart adds to the metadata, which ends with the name.
const CHART_METADATA: &str = r#"  labels:
    {{- include "bags-operator.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"#;

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
        let name = format!("{}.yaml", definition.spec.names.plural);
        let text = serde_saphyr::to_string(&definition)
            .map_err(|source| Error::Render { name: definition.spec.names.kind.clone(), source })?;
        for (folder, text) in
            [(&arguments.out, format!("{HEADER}{text}")), (&arguments.chart, chart_template(&text))]
        {
            let path = folder.join(&name);
            if !arguments.check {
                write(&path, &text)?;
            } else if read(&path)?.as_deref() != Some(text.as_str()) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

/// The same definition, for helm to render.
fn chart_template(text: &str) -> String {
    let text = text.replace("{{", "{{ \"{{\" }}");
    let (metadata, rest) = text.split_once("\nspec:\n").expect("metadata comes first, and has a name only");
    format!(
        "{{{{- if .Values.crds.enabled }}}}\n{HEADER}{metadata}\n{CHART_METADATA}spec:\n{rest}{{{{- end }}}}\n"
    )
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
