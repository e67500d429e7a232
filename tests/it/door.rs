//! Who gets in and who does not: the door before everything else.

mod browser;
