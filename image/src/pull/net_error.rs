//! From the layers of errors of an HTTP client to one clear case.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use crate::Error;

/// What kind of trouble a failed request is.
pub(super) enum Trouble {
    /// A certificate was presented and is not trusted.
    Certificate(String),
    /// TLS could not be spoken.
    NoTls(String),
    /// No byte came in time.
    Stalled,
    /// Anything else between here and there.
    Network(String),
}

impl Trouble {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut innermost: &(dyn StdError + 'static) = error;
        let mut next = Some(innermost);
        while let Some(current) = next {
            if let Some(tls) = as_tls(current) {
                return match tls {
                    rustls::Error::InvalidCertificate(_) => Self::Certificate(tls.to_string()),
                    rustls::Error::InvalidMessage(_) => Self::NoTls("it does not speak TLS".to_owned()),
                    _ => Self::NoTls(tls.to_string()),
                };
            }
            innermost = current;
            next = current.source();
        }
        if error.is_timeout() && !error.is_connect() {
            return Self::Stalled;
        }
        if error.is_timeout() {
            return Self::Network("no connection in time".to_owned());
        }
        Self::Network(innermost.to_string())
    }

    pub(super) fn into_error(self, host: &str, stall_timeout: Duration) -> Error {
        let host = host.to_owned();
        match self {
            Self::Certificate(cause) | Self::NoTls(cause) => Error::Tls { host, cause },
            Self::Stalled => Error::Stalled { host, seconds: stall_timeout.as_secs() },
            Self::Network(cause) => Error::Network { host, cause },
        }
    }
}

/// A TLS error, bare or in the I/O error that carries it.
fn as_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<rustls::Error>().or_else(|| {
        let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
        inner.downcast_ref::<rustls::Error>().or_else(|| {
            // I/O errors are nested at times.
            inner.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()
        })
    })
}
