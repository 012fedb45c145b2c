//! Which certificates are trusted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::self_signed::SelfSigned;
use crate::{Error, Result};

/// TLS for connections to `host` (with its port, as in the image's name): the system's CA certificates
/// (`SSL_CERT_FILE` and `SSL_CERT_DIR` honoured), and those put down for this host.
pub(super) fn client_config(host: &str, certs_dirs: &[PathBuf]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be unusable; with none at all, connections fail with a clear error.
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut own = Vec::new();
    for dir in certs_dirs {
        for path in crt_files(&dir.join(host))? {
            own.extend(add_file(&mut roots, &path)?);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |cause: String| Error::Tls { host: host.to_owned(), cause };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?;
    if own.is_empty() {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let verifier = SelfSigned::new(roots, own, provider).map_err(failed)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn crt_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "crt")).collect();
    files.sort();
    Ok(files)
}

/// Trusts the certificates in a file, and returns them.
fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |problem: String| Error::Certificate { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| bad(e.to_string()))?;
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|e| bad(e.to_string()))?;
    }
    if certificates.is_empty() { Err(bad("no PEM certificate in it".to_owned())) } else { Ok(certificates) }
}
