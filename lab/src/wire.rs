//! What the two halves say to each other on the control port: frames of a little-endian `u32` length and that many
//! bytes. Host to guest: one [`Request`] as JSON, then the command's stdin, ended by an empty frame. Guest to host:
//! [`Report`]s as JSON. Output travels unframed on ports of its own.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest accepted frame in bytes.
const FRAME_MAX: usize = 1 << 20;

/// What the machine is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The command and its arguments.
    pub(crate) command: Vec<Vec<u8>>,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its working directory.
    pub(crate) cwd: Vec<u8>,
    /// The host's clock: seconds since 1970.
    pub(crate) now_s: i64,
    /// Whether a share for results exists, to be mounted at /lab/out.
    pub(crate) out: bool,
    /// Whether a disk exists, to be mounted at /lab/disk.
    pub(crate) disk: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The command ended, having written this many bytes.
    Exited { code: u8, stdout_bytes: u64, stderr_bytes: u64 },
    /// The command never ran.
    NotRun { code: u8, reason: String },
}

/// Writes one frame.
pub(crate) fn write_frame(port: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(payload.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    port.write_all(&frame)
}

/// Reads one frame.
pub(crate) fn read_frame(port: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    port.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame claims {length} bytes")));
    }
    let mut payload = vec![0; length];
    port.read_exact(&mut payload)?;
    Ok(payload)
}

/// Writes a message as one frame of JSON.
pub(crate) fn send(port: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write_frame(port, &serde_json::to_vec(message)?)
}

/// Reads a message from one frame of JSON.
pub(crate) fn receive<T: DeserializeOwned>(port: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame(port)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_data_keep_their_bounds() {
        let report = Report::Exited { code: 7, stdout_bytes: 1 << 40, stderr_bytes: 0 };
        let mut port = Vec::new();
        send(&mut port, &report).unwrap();
        write_frame(&mut port, b"\0\xff").unwrap();
        write_frame(&mut port, b"").unwrap();
        let mut port = &port[..];
        assert_eq!(receive::<Report>(&mut port).unwrap(), report);
        assert_eq!(read_frame(&mut port).unwrap(), b"\0\xff");
        assert_eq!(read_frame(&mut port).unwrap(), b"");
        assert_eq!(read_frame(&mut port).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_absurd_length_is_refused_before_memory_is_taken() {
        let error = read_frame(&mut &[0xff; 64][..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
