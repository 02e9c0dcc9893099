use crate::Drawn;
use crate::select::Context;
pub(crate) fn html(_cx: &Context<'_>, _drawn: &[Drawn]) -> String {
    String::new()
}
