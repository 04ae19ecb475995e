//! A TOML document whose every value knows its key and its place.
//!
//! Reading never stops at a problem: a value that is wrong is noted and yields `None`.

use std::{cell::RefCell, ops::RangeInclusive, path::Path, sync::Arc, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Place,
    notes::Notes,
    suggest,
    text::{Text, shown},
    units,
};

/// A value with its key and its place.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    /// Dotted, as it stands in messages.
    pub(super) key: String,
    offset: usize,
    value: &'a DeValue<'a>,
    text: &'a Text,
    notes: &'a Notes,
}

impl<'a> Item<'a> {
    pub(super) fn place(&self) -> Place {
        self.text.place(self.offset)
    }

    pub(super) fn problem(&self, text: impl Into<String>) {
        self.notes.problem(self.place(), &self.key, text);
    }

    /// A name that leads nowhere.
    pub(super) fn dangling(&self, text: impl Into<String>) {
        self.notes.dangling(self.place(), &self.key, text);
    }

    pub(super) fn warning(&self, text: impl Into<String>) {
        self.notes.warning(self.place(), &self.key, text);
    }

    /// The value's file depends on another file.
    pub(super) fn source(&self, file: &Path) {
        self.notes.source(file);
    }

    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    fn mistyped<T>(&self, right: &str) -> Option<T> {
        let found = match self.value.type_str() {
            "array" => "an array",
            "integer" => "an integer",
            "string" => "a string",
            "float" => "a number with a point",
            "boolean" => "a boolean",
            "datetime" => "a date",
            _ => "a table",
        };
        self.problem(format!("is {found}; {right}"));
        None
    }

    /// Notes the problem of an `Err`.
    pub(super) fn check<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|text| self.problem(text)).ok()
    }

    pub(super) fn string(&self) -> Option<&'a str> {
        match self.value.as_str() {
            Some("") => {
                self.problem("is empty; give it a value, or leave the key out");
                None
            }
            Some(text) => Some(text),
            None => self.mistyped("write a string, in quotes"),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.mistyped("write true or false, without quotes"))
    }

    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let right = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return self.mistyped(&format!("{right}, without quotes"));
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(count) if range.contains(&count) => Some(count),
            _ => {
                self.problem(format!("{integer} is out of range; {right}"));
                None
            }
        }
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        match self.value.as_str() {
            Some(text) => self.check(units::duration(text, range)),
            None => self.mistyped("write a duration such as \"90s\", \"5m\", \"8h\" or \"30d\""),
        }
    }

    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        match self.value.as_str() {
            Some(text) => self.check(units::size(text, range)),
            None => self.mistyped("write a size such as \"64KiB\" or \"2GiB\""),
        }
    }

    pub(super) fn timestamp(&self) -> Option<jiff::Timestamp> {
        let text = match self.value {
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => return self.mistyped("write a date such as 2026-12-31, or 2026-12-31T18:00:00Z"),
        };
        self.check(units::timestamp(&text))
    }

    /// An array that holds at least one value.
    pub(super) fn array(&self, right: &str) -> Option<Vec<Self>> {
        match self.value.as_array() {
            Some(array) if array.is_empty() => {
                self.problem(format!("is empty; {right}"));
                None
            }
            Some(array) => Some(
                array
                    .iter()
                    .map(|value| Self { offset: value.span().start, value: value.get_ref(), ..self.clone() })
                    .collect(),
            ),
            None => self.mistyped(right),
        }
    }

    pub(super) fn table(&self, right: &str) -> Option<Fields<'a>> {
        match self.value.as_table() {
            Some(table) => Some(Fields {
                key: self.key.clone(),
                offset: self.offset,
                table,
                text: self.text,
                notes: self.notes,
                known: RefCell::default(),
            }),
            None => self.mistyped(right),
        }
    }
}

/// A table, and which of its keys were asked for: whatever was not is unknown.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    key: String,
    offset: usize,
    table: &'a DeTable<'a>,
    text: &'a Text,
    notes: &'a Notes,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(super) fn of_document(table: &'a Spanned<DeTable<'a>>, text: &'a Text, notes: &'a Notes) -> Self {
        Self { key: String::new(), offset: 0, table: table.get_ref(), text, notes, known: RefCell::default() }
    }

    pub(super) fn place(&self) -> Place {
        self.text.place(self.offset)
    }

    pub(super) fn notes(&self) -> &'a Notes {
        self.notes
    }

    fn dotted(&self, key: &str) -> String {
        if self.key.is_empty() { shown(key) } else { format!("{}.{}", self.key, shown(key)) }
    }

    /// Something that belongs into this table is not there.
    pub(super) fn absence(&self, text: impl Into<String>) {
        self.notes.absence(self.place(), &self.key, text);
    }

    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.table.contains_key(key)
    }

    pub(super) fn optional(&self, key: &'static str) -> Option<Item<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.table.get(key)?;
        Some(Item {
            key: self.dotted(key),
            offset: value.span().start,
            value: value.get_ref(),
            text: self.text,
            notes: self.notes,
        })
    }

    /// `right` says what to write where the key is absent.
    pub(super) fn required(&self, key: &'static str, right: &str) -> Option<Item<'a>> {
        let item = self.optional(key);
        if item.is_none() {
            self.notes.absence(self.place(), &self.dotted(key), format!("is missing; {right}"));
        }
        item
    }

    /// The tables of a table: `[vault.corp]` is `corp` in `vault`. The item's place is the name's.
    pub(super) fn named(&self, key: &'static str) -> Vec<(Arc<str>, Item<'a>)> {
        let Some(item) = self.optional(key) else { return Vec::new() };
        let right = format!("write [{key}.NAME] above its keys");
        let Some(table) = item.value.as_table() else {
            item.mistyped::<()>(&right);
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .map(|(name, value)| {
                let text = name.get_ref().as_ref();
                let item = Item {
                    key: format!("{key}.{}", shown(text)),
                    offset: name.span().start,
                    value: value.get_ref(),
                    ..item.clone()
                };
                if let Err(wrong) = units::name(text) {
                    item.problem(wrong);
                }
                (Arc::from(text), item)
            })
            .collect()
    }

    /// The tables of `[[key]]`.
    pub(super) fn listed(&self, key: &'static str) -> Vec<Self> {
        let right = format!("write [[{key}]] above the keys of each");
        self.optional(key)
            .and_then(|item| item.array(&right))
            .unwrap_or_default()
            .iter()
            .filter_map(|item| item.table(&right))
            .collect()
    }

    /// Every key with its value, in the order of the text; for tables whose keys are the user's.
    pub(super) fn entries(&self) -> Vec<(&'a str, Item<'a>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries
            .into_iter()
            .map(|(name, value)| {
                let item = Item {
                    key: self.dotted(name.get_ref()),
                    offset: value.span().start,
                    value: value.get_ref(),
                    text: self.text,
                    notes: self.notes,
                };
                (name.get_ref().as_ref(), item)
            })
            .collect()
    }

    /// As [`Self::finish`], for a file that another one includes.
    pub(super) fn finish_included(self) {
        let allowed = ["client", "rule", "expect"];
        for name in self.table.keys().filter(|name| !allowed.contains(&name.get_ref().as_ref())) {
            let text = "does not belong into an included file, which holds [client], [[rule]] and [[expect]]; move it \
                        to the main file";
            self.notes.problem(self.text.place(name.span().start), &self.dotted(name.get_ref()), text);
        }
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for name in self.table.keys() {
            let key = name.get_ref().as_ref();
            if known.contains(&key) {
                continue;
            }
            let table = self.key.split('.').next().unwrap_or_default();
            let text = suggest::unknown_key(table, key, &known);
            self.notes.problem(self.text.place(name.span().start), &self.dotted(key), text);
        }
    }
}
