//! Where a notification service under test can be told to die.

millrace::crash_points! {
    /// A notice is claimed on record, and its mail was not sent.
    BEFORE_MAIL_SENT = "before-mail-sent",
    /// The mail server has taken a mail, and nothing is committed about it.
    AFTER_MAIL_SENT = "after-mail-sent",
    /// The provider has taken a text message, and nothing is committed about it.
    AFTER_SMS_SENT = "after-sms-sent",
}
