//! Takes the kernel proper out of a compressed one, once: the emulated machine would need seconds for it at every start.
//! Layout: the kernel's Documentation/arch/x86/boot.rst.

use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The build appends the length of the uncompressed kernel to the payload.
const APPENDED: usize = 4;

/// Writes the uncompressed kernel of `image` to `to`.
pub(crate) fn extract(image: &[u8], to: &Path) -> Result<()> {
    let payload = payload(image)?;
    let tool = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!("it is compressed in an unknown way"),
    };
    let mut child = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(File::create(to)?)
        .spawn()
        .with_context(|| format!("cannot run {tool}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(payload).with_context(|| format!("{tool} stopped reading"))?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "{tool} failed ({status})");
    Ok(())
}

/// The compressed kernel inside the image.
fn payload(image: &[u8]) -> Result<&[u8]> {
    ensure!(image.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), "it is not a bzImage");
    let setup_sectors = usize::from(*image.get(SETUP_SECTORS).context("it is cut short")?);
    let start = (setup_sectors + 1) * 512 + word(image, PAYLOAD_OFFSET)?;
    let length = word(image, PAYLOAD_LENGTH)?.checked_sub(APPENDED).context("its payload is empty")?;
    image.get(start..).and_then(|rest| rest.get(..length)).context("it is cut short")
}

fn word(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image.get(at..at + 4).context("it is cut short")?;
    Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4]
            .copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image[1024 + 16..1024 + 16 + payload.len()].copy_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_what_the_header_says() {
        assert_eq!(payload(&image(b"kernelSIZE")).unwrap(), b"kernel");
    }

    #[test]
    fn damaged_images_are_refused() {
        assert!(payload(b"MZ").is_err());
        assert!(payload(&vec![0; 4096]).is_err());
        assert!(payload(&image(b"kernelSIZE")[..1030]).is_err());
        assert!(payload(&image(b"")).is_err());
        let mut absurd = image(b"kernelSIZE");
        absurd[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].fill(0xff);
        assert!(payload(&absurd).is_err());
        let dir = tempfile::tempdir().unwrap();
        assert!(extract(&image(b"kernelSIZE"), &dir.path().join("vmlinux")).is_err());
    }
}
