//! Failures as Flink's clients read them: they take only a serialised Java object for one.
//!
//! Writes the one object that is needed, `org.apache.flink.util.SerializedThrowable`, in the format of the Java Object
//! Serialization Specification. Reads none: our own clients use the text beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Longer messages are cut, since their length is written in 16 bits.
const LONGEST_TEXT: usize = 30_000;

const MAGIC_AND_VERSION: [u8; 4] = [0xAC, 0xED, 0, 5];
const TC_NULL: u8 = 0x70;
const TC_CLASS_DESCRIPTION: u8 = 0x72;
const TC_OBJECT: u8 = 0x73;
const TC_STRING: u8 = 0x74;
const TC_END_BLOCK_DATA: u8 = 0x78;
const SC_WRITE_METHOD: u8 = 1;
const SC_SERIALIZABLE: u8 = 2;

const OUTER: &str = "org.apache.flink.util.SerializedThrowable";

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerializedThrowable {
    pub class: String,
    /// The message, on its first line.
    #[serde(rename = "stack-trace")]
    pub stack_trace: String,
    /// Base64.
    #[serde(rename = "serialized-throwable")]
    serialized: String,
}

impl SerializedThrowable {
    /// `class` is the Java class that Flink's users expect for such a failure.
    pub fn new(class: &str, message: &str) -> Self {
        let mut end = message.len().min(LONGEST_TEXT);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let text = format!("{class}: {}", &message[..end]);
        SerializedThrowable {
            serialized: STANDARD.encode(serialize(class, &text)),
            class: class.to_owned(),
            stack_trace: text,
        }
    }

    /// The reason, without the name of the Java class.
    pub fn message(&self) -> &str {
        self.stack_trace.strip_prefix(&format!("{}: ", self.class)).unwrap_or(&self.stack_trace)
    }
}

/// One object: first the descriptions of its class and superclasses, then the fields of the topmost class first.
fn serialize(class: &str, text: &str) -> Vec<u8> {
    let mut stream = Stream(MAGIC_AND_VERSION.to_vec());
    stream.byte(TC_OBJECT);
    stream.class(
        OUTER,
        7_284_183_123_441_947_635,
        SC_SERIALIZABLE,
        &[
            ("fullStringifiedStackTrace", "Ljava/lang/String;"),
            ("originalErrorClassName", "Ljava/lang/String;"),
            ("serializedException", "[B"),
        ],
    );
    stream.class("java.lang.Exception", -3_387_516_993_124_229_948, SC_SERIALIZABLE, &[]);
    stream.class(
        "java.lang.Throwable",
        -3_042_686_055_658_047_285,
        SC_SERIALIZABLE | SC_WRITE_METHOD,
        &[
            ("cause", "Ljava/lang/Throwable;"),
            ("detailMessage", "Ljava/lang/String;"),
            ("stackTrace", "[Ljava/lang/StackTraceElement;"),
            ("suppressedExceptions", "Ljava/util/List;"),
        ],
    );
    stream.byte(TC_NULL);
    // Throwable: no cause, the message, no stack trace, nothing suppressed.
    stream.byte(TC_NULL);
    stream.string(text);
    stream.byte(TC_NULL);
    stream.byte(TC_NULL);
    stream.byte(TC_END_BLOCK_DATA);
    // Exception has no fields. SerializedThrowable: the text, the class, no inner object.
    stream.string(text);
    stream.string(class);
    stream.byte(TC_NULL);
    stream.0
}

struct Stream(Vec<u8>);

impl Stream {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Java's modified UTF-8, after its length.
    fn utf(&mut self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len());
        for character in text.chars() {
            match character {
                '\0' => bytes.extend([0xC0, 0x80]),
                // Beyond the basic plane: both halves of the UTF-16 pair, three bytes each.
                _ if character.len_utf16() == 2 => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let low = |shift: u16| 0x80 | ((*unit >> shift) & 0x3F) as u8;
                        bytes.extend([0xE0 | (*unit >> 12) as u8, low(6), low(0)]);
                    }
                }
                _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        // Four bytes of UTF-8 become six at most, and a zero two: texts are cut so that this fits.
        self.0.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.0.extend(bytes);
    }

    fn string(&mut self, text: &str) {
        self.byte(TC_STRING);
        self.utf(text);
    }

    /// The superclass's description follows.
    fn class(&mut self, name: &str, version: i64, flags: u8, fields: &[(&str, &str)]) {
        self.byte(TC_CLASS_DESCRIPTION);
        self.utf(name);
        self.0.extend(version.to_be_bytes());
        self.byte(flags);
        self.0.extend((fields.len() as u16).to_be_bytes());
        for (field, kind) in fields {
            self.byte(kind.as_bytes()[0]);
            self.utf(field);
            self.string(kind);
        }
        // No annotations.
        self.byte(TC_END_BLOCK_DATA);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf(text: &str) -> Vec<u8> {
        let mut stream = Stream(Vec::new());
        stream.utf(text);
        stream.0
    }

    #[test]
    fn modified_utf_8() {
        assert_eq!(utf("aé"), [0, 3, b'a', 0xC3, 0xA9]);
        assert_eq!(utf("\0"), [0, 2, 0xC0, 0x80]);
        assert_eq!(utf("\u{1F600}"), [0, 6, 0xED, 0xA0, 0xBD, 0xED, 0xB8, 0x80]);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let failure = SerializedThrowable::new("A", &"é".repeat(LONGEST_TEXT));
        assert_eq!(failure.message().len(), LONGEST_TEXT);
        assert_eq!(failure.message().chars().next_back(), Some('é'));
        assert_eq!(SerializedThrowable::new("A", "why").message(), "why");
    }
}
