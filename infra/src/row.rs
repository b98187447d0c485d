//! Columns as values of the domain. A column that cannot be read is an error that names it.

use std::{fmt::Display, str::FromStr};

use framehook_core::prediction::Position;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{Decode, Row as _, Type, postgres::PgRow};

use crate::{
    sql::{unreadable, unsigned},
    store::Result,
};

pub(super) trait RowExt {
    fn col<'r, T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>>(&'r self, column: &str) -> Result<T>;

    fn parsed<T: FromStr<Err: Display>>(&self, column: &str) -> Result<T> {
        self.parsed_opt(column)?.ok_or_else(|| unreadable(column, "NULL"))
    }

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>>;

    fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        self.json_opt(column)?.ok_or_else(|| unreadable(column, "NULL"))
    }

    fn json_opt<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>>;

    fn time(&self, column: &str) -> Result<Timestamp> {
        Timestamp::from_microsecond(self.col(column)?).map_err(|e| unreadable(column, e))
    }

    /// The columns `stored_pts_us` and `stored_frame`.
    fn stored(&self) -> Result<Option<Position>> {
        let (pts_us, frame): (Option<i64>, Option<i64>) = (self.col("stored_pts_us")?, self.col("stored_frame")?);
        Ok(pts_us.zip(frame).map(|(pts_us, frame)| Position { pts_us, frame: unsigned(frame) }))
    }
}

impl RowExt for PgRow {
    fn col<'r, T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>>(&'r self, column: &str) -> Result<T> {
        self.try_get(column).map_err(|e| unreadable(column, e))
    }

    fn parsed_opt<T: FromStr<Err: Display>>(&self, column: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.col(column)?;
        text.map(|text| text.parse().map_err(|e| unreadable(column, e))).transpose()
    }

    fn json_opt<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        let text: Option<&str> = self.col(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|e| unreadable(column, e))).transpose()
    }
}
