//! JSON that carries its own checksum, so that torn or damaged text can be detected.
//!
//! The text of an object begins with `{"check":"<16 hex digits>",`; the digits are the first ones of the
//! SHA-256 digest of everything that follows them, apart from trailing line ends. Long texts are written and
//! read piece by piece.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::digest::{self, Running};

const HEAD: &str = "{\"check\":\"";
const DIGITS: usize = 16;

/// The value as one line of JSON with its checksum, without a line end.
pub(crate) fn line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("plain data serialises");
    let rest = json.strip_prefix('{').expect("records are objects with fields");
    let rest = format!("\",{rest}");
    format!("{HEAD}{}{rest}", &digest::of_text(&rest)[..DIGITS])
}

/// Reads the output of [`line()`]; `None` if any byte differs.
pub(crate) fn open<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\n');
    let (check, rest) = text.strip_prefix(HEAD)?.split_at_checked(DIGITS)?;
    if digest::of_text(rest)[..DIGITS] != *check {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Writes [`line()`] and a line end to an empty file.
///
/// # Errors
/// It cannot be written.
pub(crate) fn record(value: &impl Serialize, file: &mut (impl Write + Seek)) -> io::Result<()> {
    write(file, |body| Ok(serde_json::to_writer(body, value)?))
}

/// Writes the value as indented JSON with its checksum and a final line end to an empty file.
///
/// # Errors
/// It cannot be written.
pub(crate) fn document(value: &impl Serialize, file: &mut (impl Write + Seek)) -> io::Result<()> {
    write(file, |body| Ok(serde_json::to_writer_pretty(body, value)?))
}

fn write<W: Write + Seek>(
    file: &mut W,
    json: impl FnOnce(&mut Sealing<'_, W>) -> io::Result<()>,
) -> io::Result<()> {
    write!(file, "{HEAD}{:0DIGITS$}", 0)?;
    let mut body = Sealing { file, digest: Running::default(), begun: false };
    json(&mut body)?;
    let check = body.digest.finish();
    file.write_all(b"\n")?;
    file.seek(SeekFrom::Start(HEAD.len() as u64))?;
    file.write_all(&check.as_bytes()[..DIGITS])
}

/// Writes an object after its checksum, which becomes the object's first field.
struct Sealing<'a, W> {
    file: &'a mut W,
    digest: Running,
    begun: bool,
}

impl<W: Write> Write for Sealing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        if let Some((first, behind)) = bytes.split_first().filter(|_| !self.begun) {
            assert_eq!(*first, b'{', "records are objects with fields");
            self.begun = true;
            self.digest.add(b"\",");
            self.file.write_all(b"\",")?;
            rest = behind;
        }
        self.digest.add(rest);
        self.file.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the output of [`record`] or [`document`]; `None` if any byte differs.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let mut file = File::open(path)?;
    let mut head = [0; HEAD.len() + DIGITS];
    match file.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let Some(check) = head.strip_prefix(HEAD.as_bytes()) else { return Ok(None) };
    let mut body = Opening { file, digest: Running::default(), ends: 0 };
    let value = serde_json::from_reader(BufReader::with_capacity(1 << 16, head.chain(&mut body)));
    match value {
        Err(e) if e.is_io() => Err(e.into()),
        Err(_) => Ok(None),
        Ok(value) => Ok((body.digest.finish().as_bytes()[..DIGITS] == *check).then_some(value)),
    }
}

/// Computes the checksum while the file is read.
struct Opening {
    file: File,
    digest: Running,
    /// Pending line ends: they count only if anything follows them.
    ends: usize,
}

impl Read for Opening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let bytes = &buffer[..count];
        let last = bytes.iter().rposition(|&b| b != b'\n');
        let text = &bytes[..last.map_or(0, |i| i + 1)];
        if !text.is_empty() {
            (0..self.ends).for_each(|_| self.digest.add(b"\n"));
            self.digest.add(text);
            self.ends = 0;
        }
        self.ends += count - text.len();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize, Serialize)]
    struct Pair {
        a: u32,
        b: String,
    }

    #[test]
    fn what_is_sealed_opens_and_any_flipped_bit_shows() {
        let pair = Pair { a: 7, b: "x\ny".to_owned() };
        let mut indented = io::Cursor::new(vec![]);
        document(&pair, &mut indented).unwrap();
        let mut flat = io::Cursor::new(vec![]);
        record(&pair, &mut flat).unwrap();
        assert_eq!(String::from_utf8(flat.into_inner()).unwrap(), line(&pair) + "\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        let by_file = |text: &[u8]| {
            std::fs::write(file.path(), text).unwrap();
            read::<Pair>(file.path()).unwrap()
        };
        for text in [line(&pair).into_bytes(), indented.into_inner()] {
            for opened in [open::<Pair>(&text), by_file(&text)] {
                assert_eq!(opened, Some(Pair { a: 7, b: "x\ny".to_owned() }));
            }
            let whole = text.trim_ascii_end();
            for i in 0..whole.len() {
                let mut bytes = whole.to_vec();
                bytes[i] ^= 1;
                for text in [&bytes, &whole[..i]] {
                    assert_eq!((open::<Pair>(text), by_file(text)), (None, None), "byte {i}");
                }
            }
        }
    }
}
