//! How a struct of the configuration is read, listed and explained: the `keys!` macro, and
//! the traits that let values, tables and lists of tables nest.
//!
//! Knows no key by name. Every fault found is handed to the [`Reader`]; reading goes on, so
//! that one run names all of them.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use super::load::Reader;

/// One line of the list of everything that can be configured.
#[derive(Debug)]
pub(super) enum Row {
    /// The head of a table, or of one of a list of tables.
    Table { name: String, each: bool, explanation: &'static str },
    /// A key; `name` is dotted from the top, `value` is TOML.
    Key { name: String, explanation: &'static str, value: String },
}

/// Says what would be right of a value that must not be taken.
pub(super) type Check<'a, T> = &'a dyn Fn(&T) -> Result<(), String>;

/// What a field can be: a value, a table, or a list of tables.
pub(super) trait Setting: Sized {
    /// Takes the value over, or leaves `self` as it is and reports why.
    fn read(
        &mut self,
        input: &Spanned<DeValue<'_>>,
        name: &str,
        check: Check<'_, Self>,
        reader: &mut Reader<'_>,
    );

    /// Adds the rows for this field.
    fn list(&self, name: String, explanation: &'static str, rows: &mut Vec<Row>);
}

/// A single value of a key.
pub(super) trait Value: Sized {
    /// Whether an error message may show what was written.
    const SHOWN: bool = true;

    /// Reads the value; the error says what would be right.
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String>;

    /// The value as it would be written in the file.
    fn to_toml(&self) -> String;
}

/// A struct made by `keys!`.
pub(super) trait Table: Default {
    /// Reads the field called `field`, `name` when dotted from the top; false if there is none.
    fn read_field(
        &mut self,
        field: &str,
        name: &str,
        input: &Spanned<DeValue<'_>>,
        reader: &mut Reader<'_>,
    ) -> bool;

    /// Adds the rows of all fields; `prefix` is empty, or the table's name and a dot.
    fn rows(&self, prefix: &str, rows: &mut Vec<Row>);
}

impl<V: Value> Setting for V {
    fn read(
        &mut self,
        input: &Spanned<DeValue<'_>>,
        name: &str,
        check: Check<'_, Self>,
        reader: &mut Reader<'_>,
    ) {
        let checked = |value: &DeValue<'_>| {
            let value = V::from_toml(value)?;
            check(&value).map(|()| value)
        };
        let read = match (V::from_toml(input.get_ref()), reader.as_text(name)) {
            // A secret of digits alone is TOML, but it is the text that is meant.
            (Err(_), Some(text)) => checked(&text),
            _ => checked(input.get_ref()),
        };
        match read {
            Ok(value) => *self = value,
            Err(expected) => reader.refuse(name, input, V::SHOWN, expected),
        }
    }

    fn list(&self, name: String, explanation: &'static str, rows: &mut Vec<Row>) {
        rows.push(Row::Key { name, explanation, value: self.to_toml() });
    }
}

/// The check of keys that take every value of their type.
pub(super) fn anything<T>(_: &T) -> Result<(), String> {
    Ok(())
}

/// The check of keys that take a range of their type's values.
pub(super) fn within<T: Value + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&T) -> Result<(), String> {
    move |value| {
        if range.contains(value) {
            return Ok(());
        }
        let (least, most) = (range.start().to_toml(), range.end().to_toml());
        Err(format!("a value from {least} to {most}"))
    }
}

/// Declares a struct of the configuration: `field: Type = default, check;`.
///
/// The doc comment of a field is both its documentation and its explanation in the default
/// file. The check, which may be left out, says what would be right of a value it refuses.
/// `needs [...]` after the name makes the struct one of a list of tables, and says which keys
/// each of them must have.
macro_rules! keys {
    (
        $(#[$about:meta])*
        pub struct $Table:ident $(needs [$($needed:literal),+])? {
            $( $(#[doc = $doc:literal])+ $field:ident : $Type:ty = $default:expr $(, $check:expr)?; )+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Table {
            $( $(#[doc = $doc])+ pub $field: $Type, )+
        }

        impl Default for $Table {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::key::Table for $Table {
            fn read_field(
                &mut self,
                field: &str,
                name: &str,
                input: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::config::load::Reader<'_>,
            ) -> bool {
                use $crate::config::key::Setting;
                match field {
                    $( stringify!($field) => {
                        self.$field.read(input, name, &$crate::config::key::keys!(@check $($check)?), reader);
                        true
                    } )+
                    _ => false,
                }
            }

            fn rows(&self, prefix: &str, rows: &mut Vec<$crate::config::key::Row>) {
                use $crate::config::key::Setting;
                $( self.$field.list(
                    format!("{prefix}{}", stringify!($field)),
                    concat!($("#", $doc, "\n"),+),
                    rows,
                ); )+
            }
        }

        impl $crate::config::key::Setting for $Table {
            fn read(
                &mut self,
                input: &toml::Spanned<toml::de::DeValue<'_>>,
                name: &str,
                _check: $crate::config::key::Check<'_, Self>,
                reader: &mut $crate::config::load::Reader<'_>,
            ) {
                reader.read_table(self, input, name);
            }

            fn list(
                &self,
                name: String,
                explanation: &'static str,
                rows: &mut Vec<$crate::config::key::Row>,
            ) {
                use $crate::config::key::Table;
                let prefix = format!("{name}.");
                rows.push($crate::config::key::Row::Table { name, each: false, explanation });
                self.rows(&prefix, rows);
            }
        }

        $( $crate::config::key::keys!(@list $Table [$($needed),+]); )?
    };
    (@list $Table:ident [$($needed:literal),+]) => {
        impl $crate::config::key::Setting for Vec<$Table> {
            fn read(
                &mut self,
                input: &toml::Spanned<toml::de::DeValue<'_>>,
                name: &str,
                _check: $crate::config::key::Check<'_, Self>,
                reader: &mut $crate::config::load::Reader<'_>,
            ) {
                if let Some(tables) = reader.read_list(input, name, &[$($needed),+]) {
                    *self = tables;
                }
            }

            fn list(
                &self,
                name: String,
                explanation: &'static str,
                rows: &mut Vec<$crate::config::key::Row>,
            ) {
                use $crate::config::key::{Row, Table};
                for table in self {
                    rows.push(Row::Table { name: name.clone(), each: true, explanation });
                    table.rows(&format!("{name}."), rows);
                }
            }
        }
    };
    (@check) => { $crate::config::key::anything };
    (@check $check:expr) => { $check };
}
pub(super) use keys;
