//! Reads whole tables of a SQLite database, nothing else: table b-trees of the file format 3
//! (<https://www.sqlite.org/fileformat2.html>). Indices, `WITHOUT ROWID` tables and what a write-ahead
//! log still holds are not read. Bounded by the file's pages, whatever the bytes say.

use std::collections::BTreeMap;

/// A value of a row; blobs are of no use here.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
}

impl Value {
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(i) => Some(*i),
            _ => None,
        }
    }
}

/// A database as bytes.
pub(super) struct Database<'a> {
    bytes: &'a [u8],
    page: usize,
    usable: usize,
}

/// A table: column names in lower case, and its rows.
pub(super) struct Rows {
    pub(super) columns: BTreeMap<String, usize>,
    pub(super) rows: Vec<Vec<Value>>,
}

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;

impl<'a> Database<'a> {
    /// Checks the header; what is wrong is the error.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, &'static str> {
        if bytes.len() < 100 || !bytes.starts_with(MAGIC) {
            return Err("no SQLite database");
        }
        let page = match usize::from(u16::from_be_bytes([bytes[16], bytes[17]])) {
            1 => 65_536,
            n if n.is_power_of_two() && n >= 512 => n,
            _ => return Err("a database with an impossible page size"),
        };
        let encoding = be32(bytes, 56);
        if !matches!(encoding, Some(0 | 1)) {
            return Err("a database in UTF-16");
        }
        let usable = page - usize::from(bytes[20]);
        if usable < 480 {
            return Err("a database with impossible reserved bytes");
        }
        Ok(Self { bytes, page, usable })
    }

    /// A table, if it is there.
    pub(super) fn table(&self, name: &str) -> Result<Option<Rows>, &'static str> {
        for (_, row) in self.rows(1)? {
            let [Value::Text(kind), Value::Text(n), _, Value::Integer(root), Value::Text(sql)] =
                &row[..]
            else {
                continue;
            };
            if kind == "table" && n.eq_ignore_ascii_case(name) {
                let (columns, key) = columns(sql);
                let root = usize::try_from(*root).map_err(|_| "a table without a page")?;
                let rows = self.rows(root)?.into_iter().map(|(id, mut row)| {
                    // The row's number is not stored a second time.
                    if let Some(value) = key.and_then(|k: usize| row.get_mut(k)) {
                        *value = Value::Integer(id);
                    }
                    row
                });
                return Ok(Some(Rows { columns, rows: rows.collect() }));
            }
        }
        Ok(None)
    }

    fn page(&self, number: usize) -> Result<&'a [u8], &'static str> {
        let start = number.checked_sub(1).and_then(|n| n.checked_mul(self.page));
        let slice = start.and_then(|s| self.bytes.get(s..s.checked_add(self.page)?));
        slice.ok_or("a page beyond the end of the file")
    }

    /// Every row of the b-tree at `root`, in order.
    fn rows(&self, root: usize) -> Result<Vec<(i64, Vec<Value>)>, &'static str> {
        const BROKEN: &str = "a broken page";
        let (mut out, mut stack, mut visited) = (Vec::new(), vec![root], 0);
        while let Some(number) = stack.pop() {
            visited += 1;
            if visited > self.bytes.len() / self.page {
                return Err("pages that point at each other");
            }
            let page = self.page(number)?;
            let at = if number == 1 { 100 } else { 0 };
            let cells = usize::from(be16(page, at + 3).ok_or(BROKEN)?);
            let kind = page[at];
            let array = at + if kind == INTERIOR { 12 } else { 8 };
            let cell = |i: usize| be16(page, array + 2 * i).map(usize::from).ok_or(BROKEN);
            match kind {
                LEAF => {
                    for i in 0..cells {
                        out.push(self.row(page, cell(i)?).ok_or("a broken row")?);
                    }
                }
                INTERIOR => {
                    let right = be32(page, at + 8).ok_or(BROKEN)?;
                    stack.push(right as usize);
                    for i in (0..cells).rev() {
                        stack.push(be32(page, cell(i)?).ok_or(BROKEN)? as usize);
                    }
                }
                _ => return Err("a page that is not of a table"),
            }
        }
        Ok(out)
    }

    fn row(&self, page: &'a [u8], at: usize) -> Option<(i64, Vec<Value>)> {
        let (size, n) = varint(page.get(at..)?)?;
        let (id, m) = varint(page.get(at + n..)?)?;
        let size = usize::try_from(size).ok().filter(|s| *s <= self.bytes.len())?;
        let begin = at + n + m;
        let local = self.local(size);
        let mut payload = page.get(begin..begin + local)?.to_vec();
        if local < size {
            let mut next = be32(page, begin + local)? as usize;
            while payload.len() < size {
                let page = self.page(next).ok()?;
                let part = (size - payload.len()).min(self.usable - 4);
                payload.extend(page.get(4..4 + part)?);
                next = be32(page, 0)? as usize;
            }
        }
        Some((id as i64, record(&payload)?))
    }

    /// How much of a payload lies on the page itself.
    fn local(&self, size: usize) -> usize {
        let most = self.usable - 35;
        if size <= most {
            return size;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fit = least + (size - least) % (self.usable - 4);
        if fit <= most { fit } else { least }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A big-endian integer of seven bits a byte, eight in the ninth; and its length.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &b) in bytes.iter().take(9).enumerate() {
        if i == 8 {
            return Some((value << 8 | u64::from(b), 9));
        }
        value = value << 7 | u64::from(b & 0x7f);
        if b < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

fn record(payload: &[u8]) -> Option<Vec<Value>> {
    let (header, mut at) = varint(payload)?;
    let header = usize::try_from(header).ok().filter(|h| *h <= payload.len())?;
    let (mut values, mut body) = (Vec::new(), header);
    while at < header {
        let (kind, n) = varint(&payload[at..])?;
        at += n;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            n => usize::try_from((n - 12) / 2).ok()?,
        };
        let bytes = payload.get(body..body.checked_add(length)?)?;
        body += length;
        values.push(match kind {
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            1..=6 => Value::Integer(integer(bytes)),
            7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            n if n >= 13 && n % 2 == 1 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            _ => Value::Null,
        });
    }
    Some(values)
}

/// A big-endian integer in two's complement, of one to eight bytes.
fn integer(bytes: &[u8]) -> i64 {
    let sign = if bytes.first().is_some_and(|b| *b >= 0x80) { -1 } else { 0 };
    bytes.iter().fold(sign, |v: i64, &b| v << 8 | i64::from(b))
}

/// Column names of a `CREATE TABLE`, in lower case, and the place of an `INTEGER PRIMARY KEY`.
fn columns(sql: &str) -> (BTreeMap<String, usize>, Option<usize>) {
    let body = sql.split_once('(').map_or("", |(_, rest)| rest);
    let (mut parts, mut depth) = (vec![String::new()], 0i32);
    for c in body.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            _ if depth < 0 => break,
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().expect("never empty").push(c),
        }
    }
    const CONSTRAINTS: [&str; 5] = ["constraint", "primary", "unique", "check", "foreign"];
    let (mut names, mut key) = (BTreeMap::new(), None);
    for part in parts {
        let words: Vec<String> = part.split_whitespace().map(str::to_lowercase).collect();
        let Some(first) = words.first().filter(|w| !CONSTRAINTS.contains(&w.as_str())) else {
            continue;
        };
        let place = names.len();
        let said = words.join(" ");
        if said.contains("primary key") && words.get(1).is_some_and(|t| t == "integer") {
            key = Some(place);
        }
        names.insert(first.trim_matches(['"', '`', '[', ']', '\'']).to_owned(), place);
    }
    (names, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_lengths_read_as_documented() {
        assert_eq!(varint(&[0x81, 0x00]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0x80]), None);
        assert_eq!((integer(&[0xff, 0xfe]), integer(&[0x01, 0x00])), (-2, 256));
    }

    #[test]
    fn column_names_come_from_the_statement() {
        let sql = "CREATE TABLE T (id INTEGER NOT NULL PRIMARY KEY, \"gridX\" INT CHECK (a, b), \
                   name TEXT, PRIMARY KEY (x))";
        let (names, key) = columns(sql);
        assert_eq!(names.keys().collect::<Vec<_>>(), ["gridx", "id", "name"]);
        assert_eq!((names["gridx"], names["name"], key), (1, 2, Some(0)));
    }
}
