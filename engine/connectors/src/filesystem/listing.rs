//! Which files there are.

use crate::error::ConnectorError;
use regex::Regex;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const COMPRESSED: [&str; 8] = ["gz", "gzip", "bz2", "xz", "zst", "zstd", "deflate", "zip"];

/// What to read.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// File or directory.
    pub root: PathBuf,
    /// For the whole path.
    pub pattern: Option<Regex>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FoundFile {
    /// Below the root; empty if the root is the file. States hold this, so a directory may move.
    pub name: String,
    pub size: u64,
}

impl Listing {
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    /// All files, by name.
    pub fn files(&self) -> Result<Vec<FoundFile>, ConnectorError> {
        let metadata = match fs::metadata(&self.root) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ConnectorError::NoSuchPath { path: self.root.clone() });
            }
            Err(error) => return Err(ConnectorError::io("looking at", &self.root)(error)),
        };
        let mut files = Vec::new();
        if metadata.is_dir() {
            self.directory(&self.root, "", &mut files)?;
            files.sort_unstable();
        } else {
            files.push(FoundFile { name: String::new(), size: metadata.len() });
        }
        for file in &files {
            let path = self.path(&file.name);
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if COMPRESSED.contains(&extension) {
                return Err(ConnectorError::Compressed { path });
            }
        }
        Ok(files)
    }

    fn directory(&self, directory: &Path, prefix: &str, files: &mut Vec<FoundFile>) -> Result<(), ConnectorError> {
        for entry in fs::read_dir(directory).map_err(ConnectorError::io("listing", directory))? {
            let entry = entry.map_err(ConnectorError::io("listing", directory))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return Err(ConnectorError::FileName { path });
            };
            // Hidden, or not finished yet: sinks write such names first.
            if name.starts_with('.') || name.starts_with('_') {
                continue;
            }
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // Gone between listing and looking: not there.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(ConnectorError::io("looking at", &path)(error)),
            };
            let name = format!("{prefix}{name}");
            if metadata.is_dir() {
                self.directory(&path, &format!("{name}/"), files)?;
            } else if metadata.is_file() && self.matches(&path) {
                files.push(FoundFile { name, size: metadata.len() });
            }
        }
        Ok(())
    }

    fn matches(&self, path: &Path) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| path.to_str().is_some_and(|path| pattern.is_match(path)))
    }
}
