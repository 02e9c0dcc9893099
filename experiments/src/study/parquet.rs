//! Tables of requests as Parquet.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::record::Sink;

/// A missing time is null: a dropped request has no recorded arrival.
const SCHEMA: &str = "message requests {
    required byte_array tenant (utf8);
    optional int64 arrival_ns;
    required int64 end_ns;
    optional int64 latency_ns;
    required byte_array outcome (utf8);
}";

/// Rows in a row group, all of which are in memory at once.
const GROUP: usize = 1 << 20;

/// Converts the rows of `requests/<cell>.csv`, a million to a row group.
///
/// # Errors
/// The text cannot be read, or the file cannot be written.
pub(crate) fn of_csv(text: impl Read, to: Sink<'_>) -> io::Result<()> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("cotenant".to_owned())
        .build();
    let mut file = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
    let mut lines = BufReader::new(text).lines().skip(1);
    loop {
        let rows = lines.by_ref().take(GROUP).collect::<io::Result<Vec<_>>>()?;
        let rows: Vec<Vec<&str>> = rows.iter().map(|l| l.split(',').collect()).collect();
        let mut group = file.next_row_group()?;
        for column in 0..5 {
            let fields = rows.iter().map(|row| row[column]);
            if column == 0 || column == 4 {
                texts(&mut group, fields)?;
            } else {
                numbers(&mut group, fields, column != 2)?;
            }
        }
        group.close()?;
        if rows.len() < GROUP {
            file.close()?;
            return Ok(());
        }
    }
}

fn texts<'a>(
    group: &mut SerializedRowGroupWriter<'_, Sink<'_>>,
    fields: impl Iterator<Item = &'a str>,
) -> Result<(), ParquetError> {
    let values: Vec<ByteArray> = fields.map(ByteArray::from).collect();
    let mut column = group.next_column()?.expect("as many columns as the schema has");
    column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
    column.close()
}

fn numbers<'a>(
    group: &mut SerializedRowGroupWriter<'_, Sink<'_>>,
    fields: impl Iterator<Item = &'a str>,
    optional: bool,
) -> Result<(), ParquetError> {
    let parsed: Vec<Option<i64>> = fields.map(|f| f.parse().ok()).collect();
    let levels: Vec<i16> = parsed.iter().map(|v| i16::from(v.is_some())).collect();
    let values: Vec<i64> = parsed.into_iter().flatten().collect();
    let mut column = group.next_column()?.expect("as many columns as the schema has");
    let levels = optional.then_some(levels.as_slice());
    column.typed::<Int64Type>().write_batch(&values, levels, None)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};

    use super::of_csv;

    #[test]
    fn requests_read_back_as_they_were() {
        let text = b"tenant,arrival_ns,end_ns,latency_ns,outcome\n\
                     a,1,5,4,completed\nb,,9,,dropped\n";
        let of_csv = |text: &[u8]| {
            let mut bytes = vec![];
            of_csv(text, &mut bytes).unwrap();
            bytes
        };
        let bytes = of_csv(text);
        assert_eq!(bytes, of_csv(text), "same rows, same bytes");
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let rows: Vec<String> =
            reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(
            rows,
            [
                "{tenant: \"a\", arrival_ns: 1, end_ns: 5, latency_ns: 4, outcome: \"completed\"}",
                "{tenant: \"b\", arrival_ns: null, end_ns: 9, latency_ns: null, outcome: \"dropped\"}",
            ]
        );
    }
}
