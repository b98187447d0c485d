//! Columns of any database as values of the domain. A column that cannot be read is an error that names it.

use std::{fmt::Display, str::FromStr};

use framehook_core::{memory::UNKNOWN_MIB, prediction::Position};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Decode, Row, Type, postgres::PgRow, sqlite::SqliteRow};

use crate::{
    sql::{from_json, unreadable, unsigned},
    store::Result,
};

pub(crate) trait RowExt: Row
where
    for<'a> &'a str: ColumnIndex<Self> + Decode<'a, Self::Database> + Type<Self::Database>,
    for<'a> i64: Decode<'a, Self::Database> + Type<Self::Database>,
{
    fn col<'r, T: Decode<'r, Self::Database> + Type<Self::Database>>(&'r self, column: &str) -> Result<T> {
        self.try_get(column).map_err(|e| unreadable(column, e))
    }

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.col(column)?;
        text.map(|text| text.parse().map_err(|e| unreadable(column, e))).transpose()
    }

    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.parsed_opt(column)?.ok_or_else(|| unreadable(column, "NULL"))
    }

    fn json_opt<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.col(column)?;
        text.map(|text| from_json(column, text)).transpose()
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        self.json_opt(column)?.ok_or_else(|| unreadable(column, "NULL"))
    }

    fn time(&self, column: &str) -> Result<Timestamp> {
        Timestamp::from_microsecond(self.col(column)?).map_err(|e| unreadable(column, e))
    }

    /// The columns `stored_pts_us` and `stored_frame`.
    fn stored(&self) -> Result<Option<Position>> {
        let (pts_us, frame): (Option<i64>, Option<i64>) = (self.col("stored_pts_us")?, self.col("stored_frame")?);
        Ok(pts_us.zip(frame).map(|(pts_us, frame)| Position { pts_us, frame: unsigned(frame) }))
    }

    /// The column `memory_mib`, which older releases leave empty.
    fn memory_mib(&self) -> Result<u32> {
        let mib: Option<i64> = self.col("memory_mib")?;
        Ok(mib.map_or(UNKNOWN_MIB, |mib| u32::try_from(mib).unwrap_or(u32::MAX)))
    }
}

impl RowExt for PgRow {}
impl RowExt for SqliteRow {}
