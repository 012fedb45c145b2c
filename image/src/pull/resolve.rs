//! From a reference to the manifest of the right build.

use reqwest::StatusCode;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, CONTENT_TYPE};

use super::client::{Client, is_transient};
use crate::manifest::{
    ACCEPT, Descriptor, Document, MAX_MANIFEST, Manifest, OCI_MANIFEST, choose, printable,
};
use crate::{Digest, Error, Platform, Reference, Result};

/// Indexes may point to indexes; nobody needs more than this.
const MAX_DEPTH: usize = 3;
/// Attempts to get a manifest when the connection breaks.
const ATTEMPTS: u32 = 3;

/// A manifest, verified.
pub(super) struct Resolved {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    pub(super) media_type: String,
    /// Digest of the index it was chosen from.
    pub(super) source_digest: Option<Digest>,
}

struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    media_type: String,
}

pub(super) async fn resolve(client: &Client, reference: &Reference, platform: &Platform) -> Result<Resolved> {
    let name = reference.familiar();
    let mut fetched = fetch(client, reference, &reference.wanted(), MAX_MANIFEST).await?;
    if let Some(expected) = reference.digest() {
        verify(&name, expected, &fetched.digest)?;
    }
    let mut source_digest = None;
    for _ in 0..MAX_DEPTH {
        let entries = match Document::parse(&name, &fetched.bytes)? {
            Document::Manifest(manifest) => {
                let Fetched { bytes, digest, media_type } = fetched;
                return Ok(Resolved { manifest, bytes, digest, media_type, source_digest });
            }
            Document::Index(entries) => entries,
        };
        source_digest.get_or_insert(fetched.digest);
        let Descriptor { digest, size, media_type } = &choose(&name, &entries, platform)?.descriptor;
        if *size > MAX_MANIFEST {
            return Err(Error::TooLarge {
                what: format!("manifest of {name}"),
                actual: *size,
                limit: MAX_MANIFEST,
            });
        }
        fetched = fetch(client, reference, &digest.to_string(), *size).await?;
        verify(&name, digest, &fetched.digest)?;
        if fetched.bytes.len() as u64 != *size {
            return Err(Error::SizeMismatch {
                what: format!("manifest of {name}"),
                expected: *size,
                actual: fetched.bytes.len() as u64,
            });
        }
        fetched.media_type.clone_from(media_type);
    }
    Err(Error::Invalid { what: name, problem: "its index points to indexes without end".to_owned() })
}

fn verify(name: &str, expected: &Digest, actual: &Digest) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let what = format!("manifest of {name}");
    Err(Error::DigestMismatch { what, expected: expected.clone(), actual: actual.clone() })
}

/// Gets a manifest by tag or digest, trying again when the connection breaks.
async fn fetch(client: &Client, reference: &Reference, wanted: &str, limit: u64) -> Result<Fetched> {
    let mut attempt = 1;
    loop {
        match fetch_once(client, reference, wanted, limit).await {
            Err(error) if is_transient(&error) && attempt < ATTEMPTS => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(client.retry_delay * attempt).await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn fetch_once(client: &Client, reference: &Reference, wanted: &str, limit: u64) -> Result<Fetched> {
    let response =
        client.get(&format!("manifests/{wanted}"), &[(ACCEPT_HEADER, ACCEPT.join(", "))], &[]).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound(reference.clone()));
    }
    let media_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_owned())
        .unwrap_or_default();
    let announced = response.headers().get("docker-content-digest").cloned();
    let bytes = client.body(response, limit, &format!("manifest of {}", reference.familiar())).await?;
    let digest = Digest::of(&bytes);
    if let Some(announced) = announced {
        let text = announced.to_str().unwrap_or_default();
        // An algorithm that husk does not know can't be checked; what is asked for by digest is checked anyway.
        if text.starts_with("sha256:") {
            let expected = text
                .parse()
                .map_err(|_| client.protocol(format!("it announces the digest {:?}", printable(text))))?;
            verify(&reference.familiar(), &expected, &digest)?;
        }
    }
    let media_type = if ACCEPT.contains(&media_type.as_str()) { media_type } else { OCI_MANIFEST.to_owned() };
    Ok(Fetched { bytes, digest, media_type })
}
