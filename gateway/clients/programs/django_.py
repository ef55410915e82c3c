import django, os
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}}, INSTALLED_APPS=[], USE_TZ=True)
django.setup()
from django.db import models, connection, transaction, IntegrityError
class Thing(models.Model):
    name = models.CharField(max_length=20, unique=True)
    made = models.DateTimeField(null=True)
    class Meta: app_label = "x"
with connection.schema_editor() as s: s.create_model(Thing)
Thing.objects.bulk_create([Thing(name="n%d" % i) for i in range(10)])
print(Thing.objects.filter(name__contains="1").count(), [t.name for t in Thing.objects.order_by("name")[:3]])
try:
    with transaction.atomic():
        Thing.objects.create(name="new")
        Thing.objects.create(name="n1")
except IntegrityError as e: print(e)
with transaction.atomic():
    print(Thing.objects.select_for_update().get(name="n2").name)
    try:
        with transaction.atomic(): Thing.objects.create(name="n1")
    except IntegrityError: pass
    Thing.objects.create(name="kept")
print([t.name for t in Thing.objects.order_by("name").iterator(chunk_size=3)])
with connection.schema_editor() as s: s.delete_model(Thing)
