-- +goose Up
CREATE TABLE good (id int PRIMARY KEY);
INSERT INTO good VALUES (1);
