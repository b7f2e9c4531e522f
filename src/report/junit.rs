//! The reports as JUnit XML. Each report is a test suite, and each tensor is a test case. If what was run differs,
//! the suite has another test case named `run`.

use std::io::Write;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report as Xml, TestCase, TestCaseStatus, TestSuite};

use super::explanation::explanation;
use super::text::verdict;
use super::{Format, NotCompared, Report, Stopped, one_line};
use crate::compare::run::shortened;

const SUITE: &str = "<testsuite ";
const END: &str = "</testsuites>";

/// The largest number of characters of a class name, which every test case repeats.
const MAX_CLASS: usize = 100;

/// The JUnit XML of all reports.
#[derive(Debug, Default)]
pub struct JUnit {
    begun: bool,
}

impl JUnit {
    /// Writes a suite as soon as it is complete. A `quick_junit::Report` would hold the suites of all cases, which
    /// takes 0.4 GiB for 10,000 small ones (956,000 test cases).
    fn suite(&mut self, out: &mut dyn Write, suite: TestSuite) -> Result<()> {
        let mut xml = Xml::unnamed();
        xml.add_test_suite(suite);
        let xml = xml.to_string()?;
        let begin = xml.find(SUITE).context("no suite in the XML")?;
        let end = xml.rfind(END).context("no end of the XML")?;
        self.begin(out)?;
        writeln!(out, "    {}", xml[begin..end].trim_end())?;
        Ok(())
    }

    /// Writes a suite of one test case, which is an error.
    fn error(&mut self, out: &mut dyn Write, class: &str, name: &str, message: &str) -> Result<()> {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(one_line(message));
        let mut case = TestCase::new(name, status);
        case.set_classname(shortened(class, MAX_CLASS));
        let mut suite = TestSuite::new(class);
        suite.add_test_case(case);
        self.suite(out, suite)
    }

    fn begin(&mut self, out: &mut dyn Write) -> Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            out.write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n")?;
        }
        Ok(())
    }
}

impl Format for JUnit {
    fn report(&mut self, out: &mut dyn Write, report: &Report) -> Result<()> {
        let name = one_line(&report.name);
        let class = shortened(&name, MAX_CLASS);
        let mut suite = TestSuite::new(&name);
        let mut add = |name: &str, status: TestCaseStatus| {
            let mut case = TestCase::new(one_line(name), status);
            case.set_classname(&class);
            suite.add_test_case(case);
        };
        let comparison = &report.comparison;
        if !comparison.run.is_empty() {
            let fields = comparison.run.iter().map(|field| one_line(field)).collect::<Vec<_>>();
            add("run", failure("DIFFERS", &fields.join("\n")));
        }
        // The tensors that were compared may all pass then.
        if let Some(origin) =
            report.origin.as_ref().filter(|_| comparison.compares_nothing_computed())
        {
            add("run", failure("DIFFERS", &one_line(origin)));
        }
        for tensor in &comparison.tensors {
            let status = match (&tensor.accepted, tensor.passes) {
                (Some(reason), _) => skipped(&format!("accepted: {reason}")),
                (None, true) => TestCaseStatus::success(),
                (None, false) => failure(&verdict(tensor), &explanation(tensor, report.acceptance)),
            };
            add(&tensor.name, status);
        }
        for left_out in &comparison.not_compared {
            add(&left_out.name, skipped(&format!("not compared: {}", left_out.why())));
        }
        suite.set_system_out(
            (comparison.noted.iter().chain(&comparison.prefix).chain(&report.origin))
                .chain([&report.line()])
                .map(|line| one_line(line))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        self.suite(out, suite)
    }

    fn not_compared(&mut self, out: &mut dyn Write, error: &NotCompared) -> Result<()> {
        self.error(out, &one_line(&error.file), "comparison", &error.message)
    }

    fn stopped(&mut self, out: &mut dyn Write, stopped: &Stopped) -> Result<()> {
        self.error(out, "check", "all cases", &stopped.line())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        self.begin(out)?;
        writeln!(out, "{END}")?;
        Ok(())
    }
}

fn failure(message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message).set_description(text);
    status
}

fn skipped(message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(one_line(message));
    status
}
