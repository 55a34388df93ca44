//! Writes a user's credentials where a person or a script finds them: files that only their owner can read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::users::Credentials;

/// Why credentials could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The directory cannot be made.
    #[error("failed to make the credentials directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("failed to write the credentials file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl Credentials {
    /// Writes `wallet.json`, `token` and, where there is one, `totp` into a directory, which is made if need be.
    /// Each file appears whole, with mode 0600. Blocks.
    ///
    /// # Errors
    /// When the directory or a file cannot be written.
    pub fn write_to(&self, directory: &Path) -> Result<(), CredentialsError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| CredentialsError::Directory { path: directory.to_owned(), source })?;
        let files =
            [("wallet.json", Some(self.wallet_json())), ("token", Some(self.token())), ("totp", self.totp())];
        for (name, content) in files {
            let path = directory.join(name);
            let result = match content {
                Some(content) => write_whole(&path, content),
                None => remove(&path), // of an earlier run, whose secret is no longer right
            };
            result.map_err(|source| CredentialsError::File { path, source })?;
        }
        Ok(())
    }
}

fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    remove(&unfinished)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content.as_bytes())?;
    drop(file);
    fs::rename(&unfinished, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
