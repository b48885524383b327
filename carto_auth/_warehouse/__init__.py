"""The CARTO Data Warehouse: its token, a BigQuery client, and Google credentials that renew themselves."""
