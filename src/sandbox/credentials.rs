//! Writes a user's credentials where a person or a script finds them: files that only their owner can read.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Sandbox;
use super::users::{Credentials, UserOptions};

/// Why a user's credentials could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The settings name no directory.
    #[error("the sandbox was started without a directory for credentials")]
    NoDirectory,
    /// The name could lead elsewhere.
    #[error("a directory of credentials is one name of letters, digits, '-' and '_', 64 at most")]
    Name,
    /// Another user of this sandbox has it.
    #[error("another user's credentials are in {0:?} already")]
    Taken(String),
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

impl Sandbox {
    /// Makes a user and writes its credentials: straight into the settings' directory, or into one below it. Files of
    /// an earlier run are replaced. Returns the new user's id. Blocks.
    ///
    /// # Errors
    /// When the settings have no directory, the name is unfit or taken, or the files cannot be written; in the last
    /// case the user exists all the same, but nobody has its credentials.
    pub fn add_user_on_disk(
        &self,
        below: Option<&str>,
        options: UserOptions,
    ) -> Result<String, CredentialsError> {
        let root = self.settings().credentials.as_deref().ok_or(CredentialsError::NoDirectory)?;
        let directory = match below {
            Some(name) if !is_plain(name) => return Err(CredentialsError::Name),
            Some(name) => root.join(name),
            None => root.to_owned(),
        };
        if !self.with(|state, _| state.claim_directory(&directory)) {
            return Err(CredentialsError::Taken(below.unwrap_or_default().to_owned()));
        }
        let user = self.add_user(options);
        user.credentials.write_to(&directory)?;
        Ok(user.id)
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

impl Credentials {
    /// Writes `wallet.json`, `token` and, where there is one, `totp` into a directory, which is made if need be.
    /// Each file appears whole, with mode 0600.
    fn write_to(&self, directory: &Path) -> Result<(), CredentialsError> {
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
