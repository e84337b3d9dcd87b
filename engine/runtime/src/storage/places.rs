//! What lies outside of the job's own directory: paths of this machine and buckets, opened when they are first named.

use super::REQUEST_TIMEOUT;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where one object is.
pub(super) struct Place {
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// Root of the store if it is a file system.
    pub directory: Option<PathBuf>,
}

impl Place {
    /// Its file, on a file system.
    pub fn file(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(self.path.as_ref()))
    }
}

/// A path below another one.
pub(super) fn join(base: &Path, relative: &str) -> Path {
    let mut path = base.clone();
    for part in relative.split('/').filter(|part| !part.is_empty()) {
        path = path.clone().join(part);
    }
    path
}

/// Opens stores by absolute names. Buckets are looked for where the job's own bucket is.
#[derive(Clone)]
pub(super) struct Places {
    endpoint: Option<String>,
    region: Option<String>,
    buckets: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl Places {
    pub fn new(endpoint: Option<String>, region: Option<String>) -> Places {
        Places { endpoint, region, buckets: Arc::default() }
    }

    pub fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, String> {
        let mut buckets = self.buckets.lock();
        if let Some(bucket) = buckets.get(name) {
            return Ok(bucket.clone());
        }
        let mut builder = object_store::aws::AmazonS3Builder::from_env()
            .with_bucket_name(name)
            .with_conditional_put(object_store::aws::S3ConditionalPut::ETagMatch)
            .with_client_options(
                object_store::ClientOptions::new()
                    .with_timeout(REQUEST_TIMEOUT)
                    .with_connect_timeout(Duration::from_secs(5)),
            )
            .with_retry(object_store::RetryConfig {
                max_retries: 6,
                retry_timeout: REQUEST_TIMEOUT,
                backoff: object_store::BackoffConfig {
                    init_backoff: Duration::from_millis(50),
                    max_backoff: Duration::from_secs(2),
                    base: 2.0,
                },
            });
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        let store: Arc<dyn ObjectStore> = Arc::new(builder.build().map_err(|error| error.to_string())?);
        buckets.insert(name.to_owned(), store.clone());
        Ok(store)
    }

    pub fn find(&self, name: &str) -> Result<Place, String> {
        if let Some(rest) = name.strip_prefix("s3://").or_else(|| name.strip_prefix("s3a://")) {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            return Ok(Place { store: self.bucket(bucket)?, path: join(&Path::default(), key), directory: None });
        }
        let Some(path) = local(name) else {
            return Err("neither a path nor an s3:// address; nothing else can be reached".to_owned());
        };
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::local::LocalFileSystem::new());
        Ok(Place { store, path: join(&Path::default(), path), directory: Some(PathBuf::from("/")) })
    }

    /// On a file system: the directory goes when nothing is left in it.
    pub async fn remove_empty(&self, location: &str) {
        if let Some(path) = local(location).map(str::to_owned) {
            // Not empty, or gone already: neither matters.
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir(path)).await;
        }
    }
}

/// The path of a name that is on this machine's file system.
fn local(name: &str) -> Option<&str> {
    let path = name.strip_prefix("file://").or_else(|| name.strip_prefix("file:")).unwrap_or(name);
    (path.starts_with('/') && !path.contains("://")).then_some(path)
}
