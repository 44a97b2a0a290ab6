-- The digest of the catalogs, by names: equal on replicas that have the same schema, whatever their OIDs, physical
-- column numbers and history (G1). Everything is read from the catalogs with the caller's snapshot, with these
-- exceptions, which deparse stored trees through the system caches and so see the newest committed catalogs:
-- pg_get_expr (defaults, generation, policies, partition bounds, index predicates), pg_get_constraintdef,
-- pg_get_indexdef, pg_get_ruledef (rules and views), pg_get_triggerdef, pg_get_statisticsobjdef, pg_get_partkeydef,
-- pg_get_function_sqlbody. A transaction with DDL runs alone (rule 9), so the difference cannot show.

CREATE FUNCTION steeldb.type_name(type oid) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname)
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = type);

CREATE FUNCTION steeldb.type_names(types oid[]) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT string_agg(coalesce(steeldb.type_name(u.type), '-'), ',' ORDER BY u.place)
        FROM unnest(types) WITH ORDINALITY AS u (type, place));

CREATE FUNCTION steeldb.relation_name(relation oid) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation);

CREATE FUNCTION steeldb.column_names(relation oid, numbers int2[]) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT string_agg(quote_ident(a.attname), ',' ORDER BY u.place)
        FROM unnest(numbers) WITH ORDINALITY AS u (number, place)
        JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = u.number);

CREATE FUNCTION steeldb.role_name(role oid) RETURNS text
LANGUAGE sql STABLE
RETURN CASE WHEN role = 0 THEN 'public' ELSE (SELECT quote_ident(rolname) FROM pg_authid WHERE oid = role) END;

-- An access list in an order that does not depend on the order of the grants.
CREATE FUNCTION steeldb.acl_text(acl aclitem[]) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT '{' || coalesce(string_agg(line, ',' ORDER BY line COLLATE "C"), '') || '}'
        FROM (SELECT steeldb.role_name(grantor) || '>' || steeldb.role_name(grantee) || ':' || privilege_type
                     || CASE WHEN is_grantable THEN '*' ELSE '' END AS line
              FROM aclexplode(acl)) AS lines
        WHERE acl IS NOT NULL);

-- The options of a column without those that a server keeps there for itself: 15.20 writes pg_attver, which comes from
-- that server's own log.
CREATE FUNCTION steeldb.shared_options(options text[]) RETURNS text
LANGUAGE sql STABLE
RETURN (SELECT string_agg(quote_literal(o.option), ',' ORDER BY o.option COLLATE "C")
        FROM unnest(options) AS o (option) WHERE o.option NOT LIKE 'pg\_attver=%');

CREATE FUNCTION steeldb.is_user_schema(schema oid) RETURNS bool
LANGUAGE sql STABLE
RETURN (SELECT n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'steeldb')
        FROM pg_namespace n WHERE n.oid = schema);

CREATE FUNCTION steeldb.catalog_lines() RETURNS SETOF text
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET extra_float_digits = 1
SET bytea_output = 'hex'
AS $$
WITH namespaces AS MATERIALIZED (
    SELECT oid, quote_ident(nspname) AS name, nspowner, nspacl FROM pg_namespace WHERE steeldb.is_user_schema(oid)
), relations AS MATERIALIZED (
    SELECT c.*, n.name || '.' || quote_ident(c.relname) AS name
    FROM pg_class c JOIN namespaces n ON n.oid = c.relnamespace
)
SELECT ROW('schema', name, steeldb.role_name(nspowner), steeldb.acl_text(nspacl))::text FROM namespaces
UNION ALL
SELECT ROW('database', d.datname, steeldb.role_name(d.datdba), pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
           d.datallowconn, d.datconnlimit, steeldb.acl_text(d.datacl))::text
FROM pg_database d WHERE d.datname = current_database()
UNION ALL
SELECT ROW('relation', c.name, c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
           c.relispartition, pg_get_expr(c.relpartbound, c.oid), CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
           c.reloptions, (SELECT m.amname FROM pg_am m WHERE m.oid = c.relam), steeldb.type_name(nullif(c.reloftype, 0)),
           steeldb.role_name(c.relowner), steeldb.acl_text(c.relacl))::text
FROM relations c
UNION ALL
SELECT ROW('column', c.name, a.attname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
           steeldb.type_name(a.atttypid), a.atttypmod, a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
           a.attcompression, a.attstattarget, steeldb.shared_options(a.attoptions), a.attfdwoptions, a.attislocal, a.attinhcount,
           (SELECT l.collname FROM pg_collation l WHERE l.oid = a.attcollation),
           pg_get_expr(d.adbin, d.adrelid), steeldb.acl_text(a.attacl))::text
FROM relations c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relkind NOT IN ('i', 'I', 'S')
UNION ALL
SELECT ROW('sequence', c.name, steeldb.type_name(s.seqtypid), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
           s.seqcycle,
           (SELECT steeldb.relation_name(d.refobjid) || '.' || steeldb.column_names(d.refobjid, ARRAY[d.refobjsubid::int2])
                   || d.deptype::text
            FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
              AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')))::text
FROM relations c JOIN pg_sequence s ON s.seqrelid = c.oid
UNION ALL
SELECT ROW('inherits', c.name, steeldb.relation_name(i.inhparent), i.inhseqno, i.inhdetachpending)::text
FROM relations c JOIN pg_inherits i ON i.inhrelid = c.oid
UNION ALL
SELECT ROW('index', c.name, steeldb.relation_name(i.indrelid), i.indisunique, i.indisprimary, i.indisexclusion,
           i.indimmediate, i.indisclustered, i.indisvalid, i.indisready, i.indislive, i.indisreplident,
           i.indnullsnotdistinct, pg_get_indexdef(i.indexrelid))::text
FROM relations c JOIN pg_index i ON i.indexrelid = c.oid
UNION ALL
SELECT ROW('constraint', n.name, coalesce(steeldb.relation_name(nullif(k.conrelid, 0)), steeldb.type_name(nullif(k.contypid, 0))),
           k.conname, k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conislocal, k.coninhcount,
           k.connoinherit, steeldb.column_names(k.conrelid, k.conkey), steeldb.relation_name(nullif(k.confrelid, 0)),
           steeldb.column_names(k.confrelid, k.confkey), k.confupdtype, k.confdeltype, k.confmatchtype,
           pg_get_constraintdef(k.oid))::text
FROM pg_constraint k JOIN namespaces n ON n.oid = k.connamespace
UNION ALL
SELECT ROW('rule', c.name, r.rulename, r.ev_type, r.ev_enabled, r.is_instead, pg_get_ruledef(r.oid))::text
FROM relations c JOIN pg_rewrite r ON r.ev_class = c.oid
UNION ALL
SELECT ROW('trigger', c.name, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid))::text
FROM relations c JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
UNION ALL
SELECT ROW('policy', c.name, p.polname, p.polcmd, p.polpermissive,
           (SELECT string_agg(steeldb.role_name(u.role), ',' ORDER BY steeldb.role_name(u.role) COLLATE "C")
            FROM unnest(p.polroles) AS u (role)),
           pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text
FROM relations c JOIN pg_policy p ON p.polrelid = c.oid
UNION ALL
SELECT ROW('statistics', n.name, s.stxname, steeldb.role_name(s.stxowner), s.stxstattarget, pg_get_statisticsobjdef(s.oid))::text
FROM pg_statistic_ext s JOIN namespaces n ON n.oid = s.stxnamespace
UNION ALL
SELECT ROW('function', n.name, p.proname, steeldb.type_names(p.proargtypes::oid[]), steeldb.type_names(p.proallargtypes),
           p.proargmodes, p.proargnames, pg_get_expr(p.proargdefaults, 0), steeldb.type_name(p.prorettype), p.proretset,
           p.prokind, l.lanname, p.provolatile, p.proparallel, p.proisstrict, p.prosecdef, p.proleakproof, p.procost,
           p.prorows, p.proconfig, p.prosrc, p.probin, pg_get_function_sqlbody(p.oid), steeldb.role_name(p.proowner),
           steeldb.acl_text(p.proacl),
           (SELECT ROW(a.aggkind, a.aggnumdirectargs, a.aggtransfn::text, a.aggfinalfn::text, a.aggcombinefn::text,
                       steeldb.type_name(a.aggtranstype), a.agginitval)::text
            FROM pg_aggregate a WHERE a.aggfnoid = p.oid))::text
FROM pg_proc p JOIN namespaces n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
UNION ALL
SELECT ROW('type', n.name, t.typname, t.typtype, t.typcategory, t.typlen, t.typbyval, t.typnotnull, t.typdefault,
           t.typdelim, steeldb.type_name(nullif(t.typbasetype, 0)), t.typtypmod, t.typinput::text, t.typoutput::text,
           (SELECT l.collname FROM pg_collation l WHERE l.oid = t.typcollation),
           (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid),
           (SELECT steeldb.type_name(r.rngsubtype) FROM pg_range r WHERE r.rngtypid = t.oid),
           steeldb.role_name(t.typowner), steeldb.acl_text(t.typacl))::text
FROM pg_type t JOIN namespaces n ON n.oid = t.typnamespace
UNION ALL
SELECT ROW('operator', n.name, o.oprname, steeldb.type_name(nullif(o.oprleft, 0)), steeldb.type_name(o.oprright),
           steeldb.type_name(nullif(o.oprresult, 0)), o.oprcode::text, o.oprrest::text, o.oprjoin::text, o.oprcanmerge,
           o.oprcanhash, steeldb.role_name(o.oprowner))::text
FROM pg_operator o JOIN namespaces n ON n.oid = o.oprnamespace
UNION ALL
SELECT ROW('operator class', n.name, o.opcname, m.amname, steeldb.type_name(o.opcintype), o.opcdefault)::text
FROM pg_opclass o JOIN namespaces n ON n.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod
UNION ALL
SELECT ROW('collation', n.name, c.collname, c.collprovider, c.collisdeterministic, c.collcollate, c.collctype,
           c.colliculocale)::text
FROM pg_collation c JOIN namespaces n ON n.oid = c.collnamespace
UNION ALL
SELECT ROW('cast', steeldb.type_name(c.castsource), steeldb.type_name(c.casttarget), c.castfunc::regprocedure::text,
           c.castcontext, c.castmethod)::text
FROM pg_cast c
UNION ALL
SELECT ROW('text search configuration', n.name, c.cfgname)::text
FROM pg_ts_config c JOIN namespaces n ON n.oid = c.cfgnamespace
UNION ALL
SELECT ROW('text search dictionary', n.name, d.dictname, d.dictinitoption)::text
FROM pg_ts_dict d JOIN namespaces n ON n.oid = d.dictnamespace
UNION ALL
SELECT ROW('extension', e.extname, e.extversion, steeldb.role_name(e.extowner))::text FROM pg_extension e
UNION ALL
SELECT ROW('language', l.lanname, l.lanpltrusted, steeldb.acl_text(l.lanacl))::text FROM pg_language l
UNION ALL
SELECT ROW('event trigger', t.evtname, t.evtevent, t.evtenabled, t.evttags, t.evtfoid::regprocedure::text)::text
FROM pg_event_trigger t
UNION ALL
SELECT ROW('publication', p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot)::text
FROM pg_publication p
UNION ALL
SELECT ROW('default access', steeldb.role_name(d.defaclrole), (SELECT nspname FROM pg_namespace WHERE oid = d.defaclnamespace),
           d.defaclobjtype, steeldb.acl_text(d.defaclacl))::text
FROM pg_default_acl d
UNION ALL
SELECT ROW('role', r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
           r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil)::text
FROM pg_authid r
UNION ALL
SELECT ROW('membership', steeldb.role_name(m.roleid), steeldb.role_name(m.member), m.admin_option)::text
FROM pg_auth_members m
UNION ALL
SELECT ROW('setting', (SELECT datname FROM pg_database WHERE oid = s.setdatabase),
           CASE WHEN s.setrole <> 0 THEN steeldb.role_name(s.setrole) END,
           (SELECT string_agg(u.setting, E'\n' ORDER BY u.setting COLLATE "C") FROM unnest(s.setconfig) AS u (setting)))::text
FROM pg_db_role_setting s
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
UNION ALL
SELECT ROW('comment', d.classoid::regclass::text, c.name, steeldb.column_names(c.oid, ARRAY[d.objsubid::int2]), d.description)::text
FROM pg_description d JOIN relations c ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
$$;

CREATE FUNCTION steeldb.catalog_digest() RETURNS bytea
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
SELECT sha256(convert_to(coalesce(string_agg(length(line) || ':' || line, E'\n' ORDER BY line COLLATE "C"), ''), 'UTF8'))
FROM steeldb.catalog_lines() AS lines (line)
$$;

-- The lines show roles, sources and access lists; clients get the digest alone.
REVOKE EXECUTE ON FUNCTION steeldb.catalog_lines() FROM PUBLIC;
