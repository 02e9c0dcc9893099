//! The JSON of profilers, read as a stream and with patience: what they write is often not quite
//! JSON (`inf`, raw control characters, backslashes of Windows paths, bytes that are not UTF-8, an
//! end that is missing), and hardly ever where it matters. A strict reader refuses the whole file.
//!
//! The only liberty taken: a quotation mark ends a string only if `,`, `:`, `}` or `]` follows it.

use std::io::{self, Read};

/// The longest single event that is kept: stacks of Python calls stay far below.
const LONGEST: usize = 8 << 20;
const BUFFER: usize = 256 << 10;

/// Bytes of a reader, one at a time, with a look ahead.
pub(super) struct Bytes<R> {
    from: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Newlines passed.
    pub line: usize,
}

impl<R: Read> Bytes<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: vec![0; BUFFER], at: 0, end: 0, line: 1 }
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.end == self.buffer.len() {
            // A look ahead over blanks alone.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.from.read(&mut self.buffer[self.end..]) {
                Ok(n) => {
                    self.end += n;
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    #[inline]
    pub(super) fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at == self.end && !self.fill()? {
            return Ok(None);
        }
        Ok(Some(self.buffer[self.at]))
    }

    #[inline]
    pub(super) fn next(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(b) = byte {
            self.at += 1;
            self.line += usize::from(b == b'\n');
        }
        Ok(byte)
    }

    /// The next byte that is not a blank, left where it is.
    pub(super) fn token(&mut self) -> io::Result<Option<u8>> {
        while let Some(b) = self.peek()? {
            if !b.is_ascii_whitespace() {
                return Ok(Some(b));
            }
            self.next()?;
        }
        Ok(None)
    }

    /// The next byte that is not a blank, without passing anything.
    fn ahead(&mut self) -> io::Result<Option<u8>> {
        let mut from = self.at;
        loop {
            if let Some(i) =
                self.buffer[from..self.end].iter().position(|b| !b.is_ascii_whitespace())
            {
                return Ok(Some(self.buffer[from + i]));
            }
            // More blanks than any writer leaves: damage.
            if self.end - self.at > BUFFER {
                return Ok(None);
            }
            let seen = self.end - self.at;
            if !self.fill()? {
                return Ok(None);
            }
            from = self.at + seen;
        }
    }

    /// Passes the rest of a string whose quotation mark has been passed; `keep` takes its bytes.
    fn string(&mut self, keep: &mut impl FnMut(u8)) -> io::Result<bool> {
        while let Some(b) = self.next()? {
            match b {
                b'\\' => {
                    keep(b);
                    match self.next()? {
                        Some(escaped) => keep(escaped),
                        None => return Ok(false),
                    }
                }
                b'"' if matches!(self.ahead()?, None | Some(b',' | b':' | b'}' | b']')) => {
                    keep(b);
                    return Ok(true);
                }
                _ => keep(b),
            }
        }
        Ok(false)
    }

    /// A string as it stands, without its quotation marks; nothing if none begins here.
    pub(super) fn key(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.token()? != Some(b'"') {
            return Ok(None);
        }
        self.next()?;
        let mut text = Vec::new();
        let whole = self.string(&mut |b| {
            if text.len() < 1 << 16 {
                text.push(b);
            }
        })?;
        text.pop();
        Ok(whole.then_some(text))
    }

    /// Passes one value; what it is goes to `into`, as far as it is not too long.
    pub(super) fn value(&mut self, into: &mut Vec<u8>) -> io::Result<Ended> {
        into.clear();
        let mut long = false;
        let ended = self.pass(&mut |b| {
            if into.len() < LONGEST {
                into.push(b);
            } else {
                long = true;
            }
        })?;
        Ok(if long && ended == Ended::Whole { Ended::Long } else { ended })
    }

    /// Passes one value, `keep` being told its bytes.
    fn pass(&mut self, keep: &mut impl FnMut(u8)) -> io::Result<Ended> {
        let mut depth = 0usize;
        let Some(first) = self.token()? else { return Ok(Ended::File) };
        if !matches!(first, b'{' | b'[' | b'"') {
            while let Some(b) = self.peek()? {
                if matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace() {
                    break;
                }
                keep(b);
                self.next()?;
            }
            return Ok(Ended::Whole);
        }
        while let Some(b) = self.next()? {
            keep(b);
            match b {
                b'"' => {
                    if !self.string(keep)? {
                        return Ok(Ended::File);
                    }
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => continue,
            }
            if depth == 0 {
                return Ok(Ended::Whole);
            }
        }
        Ok(Ended::File)
    }

    /// Goes through the members of the object that begins here. `each` is told a key, stands before its
    /// value, and passes it or returns false. Anything but an object is passed. Returns whether the end
    /// was there.
    pub(super) fn members(
        &mut self,
        each: &mut dyn FnMut(&mut Self, &[u8]) -> io::Result<bool>,
    ) -> io::Result<bool> {
        if self.token()? != Some(b'{') {
            return Ok(self.pass(&mut |_| {})? != Ended::File);
        }
        self.next()?;
        loop {
            match self.token()? {
                Some(b'"') => {}
                Some(b'}') => {
                    self.next()?;
                    return Ok(true);
                }
                None => return Ok(false),
                Some(_) => {
                    self.next()?;
                    continue;
                }
            }
            let Some(key) = self.key()? else { return Ok(false) };
            if self.token()? != Some(b':') {
                continue;
            }
            self.next()?;
            if !each(self, &key)? && self.pass(&mut |_| {})? == Ended::File {
                return Ok(false);
            }
        }
    }

    /// Goes through the objects of the list that begins here: `each` stands before one and passes it.
    /// Anything else is passed. Returns whether the end was there.
    pub(super) fn objects(
        &mut self,
        each: &mut dyn FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<bool> {
        if self.token()? != Some(b'[') {
            return Ok(self.pass(&mut |_| {})? != Ended::File);
        }
        self.next()?;
        loop {
            match self.token()? {
                Some(b'{') => each(self)?,
                Some(b']') => {
                    self.next()?;
                    return Ok(true);
                }
                None => return Ok(false),
                // Commas, and what is damaged.
                Some(_) => drop(self.next()?),
            }
        }
    }
}

/// How a value ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Whole,
    /// Too long to be an event: damage.
    Long,
    /// The file ended first.
    File,
}

/// A value of an object, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Between its quotation marks.
    Text(&'a [u8]),
    /// A number, or a word such as `inf`.
    Word(&'a [u8]),
    /// An object or a list, with its brackets.
    Nested(&'a [u8]),
}

impl<'a> Value<'a> {
    /// What stands there, of a text or a word.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(t) | Self::Word(t) => Some(t),
            Self::Nested(_) => None,
        }
    }

    /// A whole number from 0 up, in quotation marks or not; `5.0` is 5.
    pub(super) fn count(self) -> Option<u64> {
        let text = str::from_utf8(self.plain()?).ok()?.trim();
        text.parse().ok().or_else(|| {
            let number: f64 = text.parse().ok()?;
            ((0.0..=9e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
        })
    }

    /// The text, with its escapes resolved as far as they can be.
    pub(super) fn text(self) -> Option<String> {
        self.plain().map(unescaped)
    }

    /// The items of a list.
    pub(super) fn items(self) -> impl Iterator<Item = Value<'a>> {
        let inner = match self {
            // A list in quotation marks is one all the same.
            Self::Nested(t) | Self::Text(t) if t.first() == Some(&b'[') => &t[1..],
            _ => &[],
        };
        Items { rest: inner }
    }
}

/// The fields of an object, as far as they read: behind damage it goes on at the next comma.
pub(super) fn fields(object: &[u8]) -> impl Iterator<Item = (&[u8], Value<'_>)> {
    let inner = object.strip_prefix(b"{").unwrap_or(object);
    Fields { rest: inner }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest = behind(self.rest, |b| b.is_ascii_whitespace() || b == b',');
            match self.rest.first()? {
                b'"' => {}
                b'}' => return None,
                _ => {
                    self.rest = &self.rest[1..];
                    continue;
                }
            }
            let (key, rest) = quoted(self.rest)?;
            self.rest = behind(rest, |b| b.is_ascii_whitespace());
            let Some(rest) = self.rest.strip_prefix(b":") else { continue };
            let (value, rest) = value(rest)?;
            self.rest = rest;
            return Some((key, value));
        }
    }
}

struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.rest = behind(self.rest, |b| b.is_ascii_whitespace() || b == b',');
        if matches!(self.rest.first()?, b']' | b'}') {
            return None;
        }
        let (value, rest) = value(self.rest)?;
        self.rest = rest;
        Some(value)
    }
}

fn behind(text: &[u8], skip: impl Fn(u8) -> bool) -> &[u8] {
    &text[text.iter().position(|&b| !skip(b)).unwrap_or(text.len())..]
}

/// The string that begins here and what is behind it, by the rule of [`Bytes::string`].
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut i = 1;
    while i < text.len() {
        match text[i] {
            b'\\' => i += 1,
            b'"' => {
                let next = behind(&text[i + 1..], |b| b.is_ascii_whitespace()).first();
                if matches!(next, None | Some(b',' | b':' | b'}' | b']')) {
                    return Some((&text[1..i], &text[i + 1..]));
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

fn value(text: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let text = behind(text, |b| b.is_ascii_whitespace());
    match text.first()? {
        b'"' => quoted(text).map(|(inner, rest)| (Value::Text(inner), rest)),
        b'{' | b'[' => {
            let (mut depth, mut i) = (0usize, 0);
            while i < text.len() {
                match text[i] {
                    b'"' => i += quoted(&text[i..])?.0.len() + 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some((Value::Nested(&text[..=i]), &text[i + 1..]));
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
            None
        }
        _ => {
            let end = text.iter().position(|b| matches!(b, b',' | b'}' | b']'));
            let (word, rest) = text.split_at(end.unwrap_or(text.len()));
            Some((Value::Word(word.trim_ascii()), rest))
        }
    }
}

fn unescaped(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    if !text.contains('\\') {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let after = rest.clone();
        match rest.next() {
            Some(plain @ ('"' | '\\' | '/')) => out.push(plain),
            Some('n' | 'r' | 't' | 'b' | 'f') => out.push(' '),
            Some('u') => {
                let digits: String = rest.clone().take(4).collect();
                let found = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                match found {
                    Some(code) => {
                        out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                        rest = rest.as_str()[4..].chars();
                    }
                    None => out.push_str("\\u"),
                }
            }
            // No escape at all, as in the paths of Windows.
            _ => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &str) -> Vec<(String, String)> {
        let mut bytes = Bytes::new(object.as_bytes());
        let mut value = Vec::new();
        assert_eq!(bytes.value(&mut value).unwrap(), Ended::Whole, "{object}");
        fields(&value)
            .map(|(k, v)| {
                let text = match v {
                    Value::Nested(t) => String::from_utf8_lossy(t).into_owned(),
                    plain => plain.text().unwrap(),
                };
                (String::from_utf8_lossy(k).into_owned(), text)
            })
            .collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn sound_json_reads_as_it_is() {
        assert_eq!(
            read(r#"{"a": 1.5, "b" : "x\"y\u0041", "c":[1, {"d": "}"}], "e": {}}"#),
            [
                pair("a", "1.5"),
                pair("b", "x\"yA"),
                pair("c", r#"[1, {"d": "}"}]"#),
                pair("e", "{}")
            ]
        );
    }

    #[test]
    fn damage_costs_the_field_that_has_it() {
        assert_eq!(read(r#"{"a": inf, "b": NaN}"#), [pair("a", "inf"), pair("b", "NaN")]);
        assert_eq!(read("{\"a\": \"two\nlines\", \"b\": 1}")[1], pair("b", "1"));
        assert_eq!(read(r#"{"a": "C:\work\run", "b": 1}"#)[0].1, "C:\\work un");
        assert_eq!(read(r#"{"a": "say "hi" twice", "b": 1}"#)[1], pair("b", "1"));
        // The backslash hides the end of the string: it runs to the next one.
        assert_eq!(read(r#"{"a": "C:\work\", "b": 1, "c": 2}"#).last(), Some(&pair("c", "2")));
    }

    #[test]
    fn a_file_that_ends_early_says_so() {
        for text in ["{\"a\": [1, 2", "\"abc", "{\"a\": \"b\\", ""] {
            let mut value = Vec::new();
            let ended = Bytes::new(text.as_bytes()).value(&mut value).unwrap();
            assert_eq!(ended, Ended::File, "{text}");
        }
    }
}
