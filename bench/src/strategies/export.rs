//! Writes traces as CSV, gzip where the name says so.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::eviction::TraceOptions;
use crate::Result;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    traces: TraceOptions,
    /// The file to write, for one trace; gzip if it ends in .gz
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    let traces = options.traces.load()?;
    let [trace] = &traces[..] else {
        return Err("name one --trace to write".into());
    };
    let file = BufWriter::new(File::create(&options.output)?);
    if options.output.extension().is_some_and(|name| name == "gz") {
        let mut output = GzEncoder::new(file, Compression::best());
        trace.write(&mut output)?;
        output.finish()?.flush()?;
    } else {
        trace.write(file)?;
    }
    println!(
        "{} requests of {} objects",
        trace.requests.len(),
        trace.objects()
    );
    Ok(())
}
