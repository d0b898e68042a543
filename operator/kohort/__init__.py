"""Kohort: roll out model versions cohort by cohort."""
