//! Errors an operator can meet have a code and a page that says what happened and what to do. The pages are part of the
//! binary: when they are needed, the network may be what is broken.

/// One code with its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `MR0001`.
    pub code: &'static str,
    /// The whole page, in Markdown.
    pub page: &'static str,
}

/// An error that may have a code.
pub trait Coded {
    /// The code, for [`lookup`].
    fn code(&self) -> Option<&'static str>;
}

macro_rules! codes {
    ($($name:ident = $code:literal),* $(,)?) => {
        $(
            #[doc = include_str!(concat!("codes/", $code, ".md"))]
            pub const $name: &str = $code;
        )*
        /// All codes in their order.
        pub const ALL: &[Code] = &[$(Code { code: $code, page: include_str!(concat!("codes/", $code, ".md")) }),*];
    };
}

codes! {
    NATS_UNREACHABLE = "MR0001",
    NATS_SERVER_NOT_FOUND = "MR0002",
    PORT_TAKEN = "MR0003",
    DATABASE_UNREACHABLE = "MR0004",
    WRONG_SETTING = "MR0005",
    TOPOLOGY_MISMATCH = "MR0006",
    MIGRATION_FAILED = "MR0007",
    CATALOG_MISSING = "MR0008",
    JETSTREAM_NOT_ENABLED = "MR0009",
    PERMISSION_DENIED = "MR0010",
    UNDECODABLE_MESSAGE = "MR0011",
    BREAKER_OPEN = "MR0012",
    OUTBOX_NOT_DRAINING = "MR0013",
    DEAD_LETTERS_WAITING = "MR0014",
    TEST_SWITCH = "MR0015",
}

/// The page of a code, however it is written: `MR0001`, `mr1`, `1`.
pub fn lookup(code: &str) -> Option<&'static Code> {
    let code = code.trim().to_ascii_uppercase();
    let number: u32 = code.strip_prefix("MR").unwrap_or(&code).parse().ok()?;
    let code = format!("MR{number:04}");
    ALL.iter().find(|known| known.code == code)
}

impl Code {
    /// "NATS cannot be reached".
    pub fn title(&self) -> &'static str {
        let first = self.page.lines().next().unwrap_or_default();
        first.split_once(": ").map_or(first, |(_, title)| title)
    }

    /// The text under that heading, in Markdown.
    pub fn what_happened(&self) -> &'static str {
        self.section("## What happened\n")
    }

    /// The text under that heading, a Markdown list.
    pub fn what_to_do(&self) -> &'static str {
        self.section("## What to do\n")
    }

    fn section(&self, heading: &str) -> &'static str {
        let text = self.page.split_once(heading).map_or("", |(_, text)| text);
        text.split("\n## ").next().unwrap_or_default().trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_title_and_both_sections() {
        for (at, code) in ALL.iter().enumerate() {
            assert_eq!(code.code, format!("MR{:04}", at + 1));
            assert!(code.page.starts_with(&format!("# {}: {}\n", code.code, code.title())), "{}", code.code);
            assert!(code.title().len() > 10, "{}", code.code);
            assert!(code.what_happened().len() > 50, "{}", code.code);
            assert!(code.what_to_do().starts_with("- "), "{}", code.code);
            assert!(!code.what_happened().contains("##"), "{}", code.code);
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in ["MR0001", "mr0001", " mr1 ", "1"] {
            assert_eq!(lookup(text).unwrap().code, NATS_UNREACHABLE, "{text}");
        }
        for text in ["", "MR", "MR9999", "x"] {
            assert_eq!(lookup(text), None, "{text}");
        }
    }
}
