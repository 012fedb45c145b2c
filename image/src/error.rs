//! What can go wrong, each case one sentence that says what to do.

use std::io;
use std::path::{Path, PathBuf};

use husk_base::{IoError, dirs::PrivateDirError, json_file::JsonFileError};

use crate::{Digest, DigestError, Reference, ReferenceError};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on images failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The text is no digest, or of an unsupported algorithm.
    #[error(transparent)]
    Digest(#[from] DigestError),

    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The store's directory can't be made, or belongs to somebody else.
    #[error(transparent)]
    Directory(#[from] PrivateDirError),
    /// The store's index can't be written.
    #[error(transparent)]
    Index(#[from] JsonFileError),
    /// The store's file system is full, or a quota is.
    #[error("no space left for images in {}: free some space, for example with `husk rmi`", store.display())]
    NoSpace {
        /// The store's directory.
        store: PathBuf,
    },
    /// The store's directory holds something else, or a newer layout.
    #[error("{} is not an image store that husk can use: {problem}", path.display())]
    NotAStore {
        /// The store's directory.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A blob of an image is missing or damaged in the store.
    #[error("image {image} is damaged in the store ({problem}): pull or load it again")]
    Damaged {
        /// Its name or id.
        image: String,
        /// What was found.
        problem: String,
    },
    /// No such image in the store.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// An id prefix fits several images.
    #[error("image id {prefix:?} is ambiguous: it fits {}", candidates.join(", "))]
    AmbiguousId {
        /// The prefix as given.
        prefix: String,
        /// Some of the ids it fits.
        candidates: Vec<String>,
    },
    /// An image is known under several names and was to be removed by id.
    #[error("image {id} has several names ({}): remove them by name", names.join(", "))]
    SeveralNames {
        /// The id as given.
        id: String,
        /// The names.
        names: Vec<String>,
    },

    /// The registry wants a login, or does not say whether the image exists.
    #[error(
        "{host} wants a login for {image}, or the image does not exist: check the name, or run `docker login {host}` \
         (husk reads Docker's config.json)"
    )]
    LoginNeeded {
        /// Registry host.
        host: String,
        /// The image asked for.
        image: String,
    },
    /// The registry or its token server refused the credentials.
    #[error("{host} refused the password of user {user:?}: run `docker login {host}` again")]
    BadCredentials {
        /// Registry host.
        host: String,
        /// User name sent.
        user: String,
    },
    /// The user may not read the image.
    #[error("{host} denies access to {image}: ask its owner for permission")]
    Denied {
        /// Registry host.
        host: String,
        /// The image asked for.
        image: String,
    },
    /// Stored credentials can't be read.
    #[error("cannot use the credentials for {host}: {problem}")]
    Credentials {
        /// Registry host.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The registry has no such image.
    #[error("{0} does not exist in its registry: check the name and the tag")]
    NotFound(Reference),
    /// The image's manifest names a blob that the registry lacks.
    #[error("{host} has lost {digest}, a part of the image: push the image again")]
    BlobMissing {
        /// Registry host.
        host: String,
        /// The blob.
        digest: Digest,
    },
    /// The registry asks to slow down.
    #[error("{host} limits the number of pulls: wait, or run `docker login {host}`")]
    RateLimited {
        /// Registry host.
        host: String,
    },
    /// The registry answers with another status than expected.
    #[error("{host} answered {status} to a request for {what}: try again later or ask the registry's owner")]
    Status {
        /// Registry host.
        host: String,
        /// HTTP status.
        status: u16,
        /// What was requested.
        what: String,
    },
    /// The registry cannot be reached, or the connection broke too often.
    #[error("cannot talk to {host}: {cause}")]
    Network {
        /// Registry (or token server) host.
        host: String,
        /// The innermost reason.
        cause: String,
    },
    /// No byte came for too long.
    #[error("{host} sent nothing for {seconds} s: check the network and try again")]
    Stalled {
        /// Registry host.
        host: String,
        /// Length of the wait in seconds.
        seconds: u64,
    },
    /// The registry's certificate is not trusted, or TLS failed otherwise.
    #[error(
        "no trusted TLS connection to {host}: {cause}. If its CA is your own, put the CA certificate into \
         /etc/docker/certs.d/{host}/ca.crt"
    )]
    Tls {
        /// Registry host and port.
        host: String,
        /// The innermost reason.
        cause: String,
    },
    /// A file with certificates can't be used.
    #[error("cannot use the CA certificates in {}: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A registry answers, but not as the distribution specification says.
    #[error("{host} does not answer as a registry does: {problem}")]
    Protocol {
        /// Registry host.
        host: String,
        /// What is wrong.
        problem: String,
    },

    /// Bytes do not hash to their digest.
    #[error("{what} does not match its digest: expected {expected}, got {actual}; do not trust this source")]
    DigestMismatch {
        /// What was hashed.
        what: String,
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("{what} has another size than announced: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// What was measured.
        what: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came (reading stops soon after the announced size).
        actual: u64,
    },
    /// A manifest, index or configuration that is not valid.
    #[error("{what} is not valid: {problem}")]
    Invalid {
        /// Which document.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// Something absurdly large was announced, or in absurd number.
    #[error("{what} is too large: {actual} (the limit is {limit})")]
    TooLarge {
        /// What was measured.
        what: String,
        /// As announced or as found.
        actual: u64,
        /// The limit.
        limit: u64,
    },
    /// The image exists, but not for this platform.
    #[error("{image} has no build for {wanted}: it offers {}", list(offered))]
    NoSuchPlatform {
        /// The image.
        image: String,
        /// The platform asked for.
        wanted: String,
        /// What the image offers.
        offered: Vec<String>,
    },
    /// An image of a kind that is refused.
    #[error("{image} cannot be used: {problem}")]
    Unsupported {
        /// The image.
        image: String,
        /// Which feature, and what to do instead.
        problem: String,
    },
    /// The file to load is no image archive.
    #[error("{source_name} is not an image archive husk can load: {problem}")]
    NotAnArchive {
        /// File name or `standard input`.
        source_name: String,
        /// What is wrong.
        problem: String,
    },
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none at all".to_owned() } else { items.join(", ") }
}

impl Error {
    /// Wraps a file error; `map_err(Error::io("read", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let error = IoError::of(action, path);
        move |source: io::Error| Self::Io(error(source))
    }

    /// Wraps an error of writing to the store at `root`: a full disk gets its own case.
    pub(crate) fn store_write(root: &Path, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (in_store, error) = (Self::in_store(root), IoError::of("write", path));
        move |source: io::Error| in_store(error(source))
    }

    /// As [`store_write`](Self::store_write), for an error that names the file.
    pub(crate) fn in_store(root: &Path) -> impl FnOnce(IoError) -> Self {
        let root = root.to_owned();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { store: root },
            _ => Self::Io(error),
        }
    }
}
