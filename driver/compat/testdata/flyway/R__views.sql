CREATE OR REPLACE VIEW billing.open AS SELECT i.*, c.name FROM billing.invoice i JOIN billing.customer c ON c.id = i.customer WHERE state <> 'paid';
COMMENT ON VIEW billing.open IS 'repeatable';
CREATE OR REPLACE FUNCTION billing.total(s billing.state DEFAULT 'sent') RETURNS numeric LANGUAGE sql STABLE AS $$ SELECT sum(net) FROM billing.invoice WHERE state = s $$;
