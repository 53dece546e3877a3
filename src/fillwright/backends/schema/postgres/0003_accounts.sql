-- Whose an order is; empty where there are no keys. client_order_id is unique, so it has the account in front of it.
ALTER TABLE orders ADD COLUMN account text COLLATE "C" NOT NULL DEFAULT '';
