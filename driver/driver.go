package driver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"
)

// Name is what the driver is registered as.
const Name = "pgdist"

var (
	_ driver.Driver        = (*Driver)(nil)
	_ driver.DriverContext = (*Driver)(nil)
)

func init() { sql.Register(Name, &Driver{}) }

// Driver is the database/sql driver.
type Driver struct{}

// openTimeout bounds Driver.Open, which has no context of the caller's.
const openTimeout = 60 * time.Second

// Open opens a connection by itself. database/sql uses OpenConnector instead.
func (d *Driver) Open(dsn string) (driver.Conn, error) {
	connector, err := d.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	c, err := connector.Connect(ctx)
	if err != nil {
		connector.(*Connector).Close()
		return nil, err
	}
	c.(*Conn).onClose = connector.(*Connector).Close
	return c, nil
}

// OpenConnector reads the DSN; nothing is connected yet. Connectors of one DSN
// share their connections.
func (d *Driver) OpenConnector(dsn string) (driver.Connector, error) {
	config, err := ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	return &Connector{shared: shared.join(dsnKey(dsn), config), driver: d}, nil
}
