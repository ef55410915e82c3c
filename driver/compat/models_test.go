//go:build unix

package compat

import (
	"database/sql"
	"errors"
	"time"

	"gorm.io/gorm"
)

// The models as the program's first release has them …

type company struct {
	ID   int
	Name string `gorm:"uniqueIndex;not null"`
}

type language struct {
	gorm.Model
	Code string `gorm:"uniqueIndex;size:8"`
}

type user struct {
	gorm.Model
	Name      string `gorm:"index:idx_name_age,priority:1;not null"`
	Age       int    `gorm:"index:idx_name_age,priority:2;check:age_positive,age >= 0"`
	Mail      *string
	Birthday  sql.NullTime
	Rate      float64 `gorm:"type:numeric(10,4);default:1.5"`
	CompanyID *int
	Company   *company
	Pets      []pet
	Account   account    `gorm:"constraint:OnDelete:CASCADE"`
	Languages []language `gorm:"many2many:user_languages"`
	Log       string     `gorm:"-"`
}

type pet struct {
	ID     uint
	UserID uint `gorm:"index"`
	Name   string
	Data   []byte
	Born   time.Time `gorm:"autoCreateTime:milli"`
}

type account struct {
	ID     uint
	UserID uint   `gorm:"uniqueIndex"`
	Number string `gorm:"size:20"`
}

type event struct {
	ID   string            `gorm:"type:uuid;default:gen_random_uuid();primaryKey"`
	Kind string            `gorm:"index:,where:kind <> ''"`
	Body map[string]string `gorm:"serializer:json;type:jsonb"`
}

func (company) TableName() string  { return "companies" }
func (language) TableName() string { return "languages" }
func (user) TableName() string     { return "users" }
func (pet) TableName() string      { return "pets" }
func (account) TableName() string  { return "accounts" }
func (event) TableName() string    { return "events" }

var errNameless = errors.New("a user needs a name")

// BeforeCreate refuses and AfterCreate writes, in the same transaction.
func (u *user) BeforeCreate(*gorm.DB) error {
	if u.Name == "" {
		return errNameless
	}
	return nil
}

func (u *user) AfterCreate(tx *gorm.DB) error {
	return tx.Create(&event{Kind: "created", Body: map[string]string{"name": u.Name}}).Error
}

func (u *user) AfterFind(*gorm.DB) error {
	u.Log = "found " + u.Name
	return nil
}

// … and as its second release has them.

type company2 struct {
	ID      int
	Name    string `gorm:"uniqueIndex;not null;size:100"`
	Country string `gorm:"not null;default:'NL';index"`
}

type user2 struct {
	gorm.Model
	Name     string `gorm:"index:idx_name_age,priority:1;not null"`
	Age      int64  `gorm:"index:idx_name_age,priority:2;check:age_positive,age >= 0"`
	Mail     *string
	Birthday sql.NullTime
	Rate     float64   `gorm:"type:numeric(12,6);default:2.5"`
	Seen     time.Time `gorm:"default:clock_timestamp()"`
	Notes    []note2   `gorm:"foreignKey:UserID"`
}

type note2 struct {
	UserID uint   `gorm:"primaryKey;autoIncrement:false"`
	Line   int    `gorm:"primaryKey;autoIncrement:false"`
	Text   string `gorm:"type:text;comment:what was said"`
}

type pet2 struct {
	ID     uint
	UserID uint   `gorm:"index"`
	Name   string `gorm:"type:varchar(40);not null;default:'nameless'"`
	Data   []byte
	Born   time.Time
	Parent *uint
}

func (company2) TableName() string { return "companies" }
func (user2) TableName() string    { return "users" }
func (note2) TableName() string    { return "notes" }
func (pet2) TableName() string     { return "pets" }
