use clap::Args;
#[derive(Args)]
pub(crate) struct Options {}
pub(crate) fn command(_: &Options) -> crate::Result<()> {
    Ok(())
}
