//! The operator's secret key: read from its own namespace, made at the first start. Replicas that start together end up
//! with the same one.

use crate::error::Error;
use crate::settings::TokenKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

const ENTRY: &str = "key";
/// Bytes.
const LENGTH: usize = 32;

/// # Errors
/// The API server does not answer or does not allow it, or the secret has no usable key.
pub async fn read_or_make(client: &Client, namespace: &str, name: &str) -> Result<TokenKey, Error> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let object = || format!("Secret {namespace}/{name}");
    if let Some(secret) = secrets.get_opt(name).await.map_err(|error| Error::api("get", object(), error))? {
        return usable(&secret, &object());
    }
    let mut key = Vec::with_capacity(LENGTH);
    while key.len() < LENGTH {
        key.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    }
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some([(ENTRY.to_owned(), ByteString(key))].into()),
        type_: Some("Opaque".into()),
        ..Secret::default()
    };
    match secrets.create(&PostParams::default(), &secret).await {
        Ok(secret) => {
            tracing::info!(secret = name, "made the key from which the jobs' tokens derive");
            usable(&secret, &object())
        }
        // Another replica was quicker.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let secret = secrets.get(name).await.map_err(|error| Error::api("get", object(), error))?;
            usable(&secret, &object())
        }
        Err(error) => Err(Error::api("create", object(), error)),
    }
}

fn usable(secret: &Secret, object: &str) -> Result<TokenKey, Error> {
    let key = secret.data.as_ref().and_then(|data| data.get(ENTRY)).map(|key| key.0.as_slice()).unwrap_or_default();
    if key.len() < LENGTH {
        return Err(Error::Setup(format!(
            "{object} has no entry `{ENTRY}` of at least {LENGTH} bytes; delete it and a new key is made, or put one there"
        )));
    }
    Ok(TokenKey::new(key))
}
