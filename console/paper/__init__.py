"""What an auditor or an ethics board keeps: privacy statement, audit report, DPIA annex; as PDF, HTML and JSON."""
