//! The format of a bundle: one file of named sections, each with a checksum, under one hash that
//! covers every byte.
//!
//! ```text
//! "JALIBNDL" | version u8 | kind u8 | model id [16]                          head, 26 bytes
//! section bytes, one after the other
//! table = sections u32 | (name length u8 | name | length u64 | blake3 [32])*
//! table length u64 | blake3 of head and table [32] | "JALIEND1"              foot, 48 bytes
//! ```
//!
//! Sections follow one another without gaps, so every byte of a file is covered by exactly one of
//! these: a section's checksum, the content hash, or the foot's own marks. The table stands at the
//! end, so a writer does not have to hold the sections, and a file that was cut off has no foot.

use std::io::{Read, Seek, SeekFrom, Write};

use jali_ring::wire::{Reader, Writer};

use crate::BundleError;

/// First bytes of a bundle.
const MAGIC: [u8; 8] = *b"JALIBNDL";
/// Last bytes of a bundle.
const END: [u8; 8] = *b"JALIEND1";
/// Version that this build writes and reads.
pub const VERSION: u8 = 5;
/// Most bytes of a section of a sealed model.
pub const MAX_SECTION: u64 = 1 << 30;
const HEAD: u64 = 26;
const FOOT: u64 = 48;
/// Most bytes of a table: more sections than any model has.
const MAX_TABLE: u64 = 1 << 26;

/// The side that a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For the server: nothing in it is secret.
    Server,
    /// For the client: everything in it is secret.
    Client,
    /// A network sealed for guests, for the server.
    GuestServer,
    /// A network sealed for guests, for its owner: everything in it is secret.
    GuestOwner,
    /// What the owner says of a batch of tickets, signed.
    Manifest,
    /// The server's part of a batch of tickets: its seed is secret.
    Batch,
    /// The guest's part of a batch of tickets, locked for the guest.
    Wallet,
    /// An inference of a guest as it went over the line, signed by the server.
    Transcript,
}

/// The kinds, with the byte that stands for each in a file and the name in messages.
const KINDS: [(Kind, u8, &str); 8] = [
    (Kind::Server, b'S', "server"),
    (Kind::Client, b'C', "client"),
    (Kind::GuestServer, b'G', "server for guests"),
    (Kind::GuestOwner, b'O', "owner for guests"),
    (Kind::Manifest, b'M', "manifest"),
    (Kind::Batch, b'B', "server's batch of tickets"),
    (Kind::Wallet, b'W', "guest's tickets"),
    (Kind::Transcript, b'T', "transcript"),
];

impl Kind {
    fn entry(self) -> (Kind, u8, &'static str) {
        KINDS.into_iter().find(|(kind, ..)| *kind == self).unwrap_or(KINDS[0])
    }

    fn byte(self) -> u8 {
        self.entry().1
    }

    /// Returns the kind that a file's first bytes name, or `None` if they are not a bundle's.
    pub fn of(head: &[u8]) -> Option<Self> {
        let [_, byte, ..] = head.strip_prefix(&MAGIC)? else { return None };
        KINDS.into_iter().find(|(_, of_kind, _)| of_kind == byte).map(|(kind, ..)| kind)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.entry().2)
    }
}

/// One section as the table names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    hash: blake3::Hash,
}

/// Writes a bundle, section by section.
pub struct BundleWriter<W> {
    sink: W,
    head: Vec<u8>,
    table: Writer,
    count: u32,
}

impl<W> std::fmt::Debug for BundleWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BundleWriter<{} sections>", self.count)
    }
}

/// Makes an error of a failed input or output.
fn io(e: &std::io::Error) -> BundleError {
    BundleError::Io(e.to_string())
}

impl<W: Write> BundleWriter<W> {
    /// Begins a bundle of the model with id `model`.
    ///
    /// # Errors
    /// [`BundleError::Io`] if the sink fails.
    pub fn new(mut sink: W, kind: Kind, model: [u8; 16]) -> Result<Self, BundleError> {
        let mut head = Writer::new();
        head.raw(&MAGIC);
        head.u8(VERSION);
        head.u8(kind.byte());
        head.raw(&model);
        let head = head.finish();
        sink.write_all(&head).map_err(|e| io(&e))?;
        Ok(Self { sink, head, table: Writer::new(), count: 0 })
    }

    /// Appends a section; its name has at most 255 bytes.
    ///
    /// # Errors
    /// [`BundleError::Io`] if the sink fails.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let name = &name.as_bytes()[..name.len().min(255)];
        self.sink.write_all(bytes).map_err(|e| io(&e))?;
        self.table.u8(name.len() as u8);
        self.table.raw(name);
        self.table.u64(bytes.len() as u64);
        self.table.raw(blake3::hash(bytes).as_bytes());
        self.count += 1;
        Ok(())
    }

    /// Writes table and foot; returns the sink and the content hash.
    ///
    /// # Errors
    /// [`BundleError::Io`] if the sink fails.
    pub fn finish(mut self) -> Result<(W, [u8; 32]), BundleError> {
        let mut table = Writer::new();
        table.u32(self.count);
        table.raw(&self.table.finish());
        let table = table.finish();
        let hash = content_hash(&self.head, &table);
        let mut foot = Writer::new();
        foot.u64(table.len() as u64);
        foot.raw(&hash);
        foot.raw(&END);
        for part in [&table, &foot.finish()] {
            self.sink.write_all(part).map_err(|e| io(&e))?;
        }
        self.sink.flush().map_err(|e| io(&e))?;
        Ok((self.sink, hash))
    }
}

fn content_hash(head: &[u8], table: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("jali 1 bundle: head and table");
    hasher.update(head);
    hasher.update(table);
    *hasher.finalize().as_bytes()
}

/// A bundle that is being read.
pub struct Bundle<R> {
    source: R,
    kind: Kind,
    model: [u8; 16],
    hash: [u8; 32],
    sections: Vec<Section>,
    next: usize,
}

impl<R> std::fmt::Debug for Bundle<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle<{}, {} sections>", self.kind, self.sections.len())
    }
}

impl<R: Read + Seek> Bundle<R> {
    /// Reads head and table, and checks everything but the sections themselves.
    ///
    /// # Errors
    /// [`BundleError::Format`] for a foreign file or version, [`BundleError::Section`] for a
    /// damaged or cut one.
    pub fn open(mut source: R, kind: Kind) -> Result<Self, BundleError> {
        let length = source.seek(SeekFrom::End(0)).map_err(|e| io(&e))?;
        let foreign = |got: String| BundleError::Format { expected: VERSION, got };
        let damaged = |why: &str| BundleError::Section { section: "table".into(), why: why.into() };
        if length < HEAD {
            return Err(foreign(format!("it has {length} bytes")));
        }
        source.seek(SeekFrom::Start(0)).map_err(|e| io(&e))?;
        let head = take(&mut source, HEAD)?;
        let mut r = Reader::new(&head);
        if r.array::<8>()? != MAGIC {
            return Err(foreign("it starts with other bytes".into()));
        }
        let version = r.u8()?;
        if version != VERSION {
            return Err(foreign(format!("it has version {version}")));
        }
        let byte = r.u8()?;
        let found = Kind::of(&head).ok_or_else(|| foreign(format!("it is of kind {byte}")))?;
        let model = r.array()?;
        if length < HEAD + FOOT {
            return Err(damaged("the file is cut off"));
        }
        source.seek(SeekFrom::Start(length - FOOT)).map_err(|e| io(&e))?;
        let foot = take(&mut source, FOOT)?;
        let mut r = Reader::new(&foot);
        let (table_len, hash) = (r.u64()?, r.array::<32>()?);
        if r.array::<8>()? != END {
            return Err(damaged("the file is cut off, or its end is damaged"));
        }
        let room = length - HEAD - FOOT;
        if table_len > room.min(MAX_TABLE) {
            return Err(damaged("its length does not fit the file"));
        }
        source.seek(SeekFrom::Start(length - FOOT - table_len)).map_err(|e| io(&e))?;
        let table = take(&mut source, table_len)?;
        if content_hash(&head, &table) != hash {
            return Err(damaged("head, table and content hash do not agree"));
        }
        if found != kind {
            return Err(BundleError::Kind { expected: kind, got: found });
        }
        let sections = read_table(&table, room - table_len)?;
        Ok(Self { source, kind, model, hash, sections, next: 0 })
    }

    /// Returns the public id of the sealed model, 16 bytes.
    pub fn model(&self) -> [u8; 16] {
        self.model
    }

    /// Returns the content hash, 32 bytes. It covers the whole content: two bundles with the same
    /// hash are the same.
    pub fn content_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Returns all sections in order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Returns whether every section has been read.
    pub fn is_at_end(&self) -> bool {
        self.next == self.sections.len()
    }

    /// Returns the section that [`Bundle::next`] reads, as the table names it, or `None` at the
    /// end.
    pub fn peek(&self) -> Option<&Section> {
        self.sections.get(self.next)
    }

    /// Returns the sections that have not been read yet, in order.
    pub fn following(&self) -> &[Section] {
        self.sections.get(self.next..).unwrap_or_default()
    }

    /// Reads the next section into memory and checks it. It may have at most `most` bytes.
    ///
    /// # Errors
    /// [`BundleError::Section`] if there is none, or it is too long or damaged.
    pub fn next(&mut self, most: u64) -> Result<Vec<u8>, BundleError> {
        let Some(section) = self.sections.get(self.next) else {
            return Err(BundleError::Section { section: "table".into(), why: "a section is missing".into() });
        };
        let fail = |why: String| BundleError::Section { section: section.name.clone(), why };
        if section.len > most {
            return Err(fail(format!("it has {} bytes, at most {most} make sense", section.len)));
        }
        self.source.seek(SeekFrom::Start(section.offset)).map_err(|e| io(&e))?;
        let bytes = take(&mut self.source, section.len).map_err(|e| fail(e.to_string()))?;
        if blake3::hash(&bytes) != section.hash {
            return Err(fail("its checksum does not fit: the file is damaged".into()));
        }
        self.next += 1;
        Ok(bytes)
    }

    /// Reads the next section, which must have this name and at most `most` bytes, and checks it.
    ///
    /// # Errors
    /// [`BundleError::Section`] if there is none, it has another name, or it is too long or
    /// damaged.
    pub fn expect(&mut self, name: &str, most: u64) -> Result<Vec<u8>, BundleError> {
        match self.peek() {
            Some(section) if section.name != name => {
                let why = format!("expected the section \"{name}\" here");
                Err(BundleError::Section { section: section.name.clone(), why })
            }
            _ => self.next(most),
        }
    }

    /// Reads the section of this name, wherever it stands, and checks it. [`Bundle::next`] goes on
    /// behind it.
    ///
    /// # Errors
    /// [`BundleError::Section`] as for [`Bundle::expect`].
    pub fn named(&mut self, name: &str, most: u64) -> Result<Vec<u8>, BundleError> {
        let missing = || BundleError::Section { section: name.into(), why: "it is missing".into() };
        self.next = self.sections.iter().position(|s| s.name == name).ok_or_else(missing)?;
        self.next(most)
    }

    /// Reads and checks every section from the first on and keeps none; `progress` is called with
    /// each.
    ///
    /// # Errors
    /// [`BundleError::Section`] for the first section that is damaged, [`BundleError::Io`] if the
    /// source fails.
    pub fn verify(&mut self, mut progress: impl FnMut(&Section)) -> Result<(), BundleError> {
        self.next = 0;
        while let Some(section) = self.peek().cloned() {
            self.next(u64::MAX)?;
            progress(&section);
        }
        Ok(())
    }
}

/// Reads exactly `len` bytes. Memory grows with the bytes that really come, not with what a file
/// says.
fn take(source: &mut impl Read, len: u64) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len.min(1 << 26) as usize).map_err(|e| BundleError::Io(e.to_string()))?;
    source.take(len).read_to_end(&mut bytes).map_err(|e| io(&e))?;
    if (bytes.len() as u64) < len {
        return Err(BundleError::Io(format!("the file ended after {} of {len} bytes", bytes.len())));
    }
    Ok(bytes)
}

fn read_table(table: &[u8], room: u64) -> Result<Vec<Section>, BundleError> {
    let damaged = |why: &str| BundleError::Section { section: "table".into(), why: why.into() };
    let mut r = Reader::new(table);
    let count = r.count(table.len() / 41, "sections")?;
    let (mut sections, mut offset) = (Vec::with_capacity(count), HEAD);
    for _ in 0..count {
        let len = usize::from(r.u8()?);
        let name = String::from_utf8(r.raw(len)?.to_vec()).map_err(|_| damaged("a name is not text"))?;
        // Names are shown to people: control characters could forge what is printed.
        if name.contains(char::is_control) {
            return Err(damaged("a name holds control characters"));
        }
        let (len, hash) = (r.u64()?, blake3::Hash::from_bytes(r.array()?));
        sections.push(Section { name, offset, len, hash });
        offset = offset.checked_add(len).ok_or_else(|| damaged("lengths do not add up"))?;
    }
    r.finish()?;
    if offset != HEAD + room {
        return Err(damaged("lengths do not add up to that of the file"));
    }
    Ok(sections)
}
